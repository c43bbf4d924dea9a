"""What importing the package brings along, and what it does not."""

import json
import re
import subprocess
import sys

import pytest
from helpers.running import ROOT

import maskjax

# Each takes a good part of a second to import, or is not installed with the package.
HEAVY = {
  "grain",
  "matplotlib",
  "orbax",
  "pandas",
  "sklearn",
  "tensorflow",
  "tensorflow_datasets",
  "tensorstore",
  "tokenizers",
  "torch",
  "transformers",
  "wandb",
}


def imported(statement: str) -> set[str]:
  """The modules that a fresh interpreter has after a statement."""
  program = f"{statement}; import json, sys; print(json.dumps(sorted(sys.modules)))"
  done = subprocess.run(
    [sys.executable, "-c", program], check=True, capture_output=True, text=True
  )
  return set(json.loads(done.stdout))


def test_the_package_imports_nothing_of_its_own():
  modules = imported("import maskjax")
  assert [name for name in modules if name.startswith("maskjax")] == ["maskjax"]
  assert not modules & {*HEAVY, "jax", "PIL"}


def test_the_rooms_import_neither_heavy_libraries_nor_systems():
  modules = imported("import maskjax; [getattr(maskjax, x) for x in maskjax.__all__]")
  assert not modules & HEAVY
  systems = {name for name in modules if name.startswith("maskjax.systems.")}
  assert systems == {"maskjax.systems.system"}


def test_every_public_name_is_there():
  for name in maskjax.__all__:
    assert name in dir(maskjax)
    assert getattr(maskjax, name) is not None
  assert maskjax.fit is maskjax.training.fit
  assert maskjax.UserError.__module__ == "maskjax.errors"
  with pytest.raises(AttributeError, match="'maskjax' has no attribute 'fitt'"):
    _ = maskjax.fitt


def test_what_pages_and_tests_use_is_public():
  files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.py")]
  used = {
    name for f in files for name in re.findall(r"\bmj\.([a-z]\w+)", f.read_text())
  }
  assert used and used <= {*maskjax.__all__}
