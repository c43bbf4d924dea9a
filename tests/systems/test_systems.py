"""Systems are found in the folders of their families."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.running import ROOT

from maskjax import objectives, resolve, systems
from maskjax.errors import UserError

FAMILIES = systems.families()


@pytest.mark.parametrize("name", FAMILIES)
def test_file_function_config_and_test_bear_the_papers_name(name):
  family = FAMILIES[name]
  function = systems.find(name)
  assert function.__name__ == name
  package = f"maskjax.systems.{family}.{name}"
  assert f"{function.__module__}.".startswith(f"{package}.")
  record = importlib.import_module(package).SYSTEM
  assert (record.name, record.family) == (name, family)
  assert record.config == f"configs/{family}/{name}.py"
  assert (ROOT / record.config).is_file()
  tests = ROOT / f"tests/systems/{family}/test_{name}.py"
  assert "def without_mechanism(monkeypatch)" in tests.read_text()
  assert record.differs and isinstance(record.differs, tuple)


def test_records_are_of_all_systems():
  assert [record.name for record in systems.records()] == [
    *sorted(n for n in FAMILIES if FAMILIES[n] == "image"),
    *sorted(n for n in FAMILIES if FAMILIES[n] == "text"),
  ]


def test_a_system_is_an_attribute_of_the_package_and_a_name_in_a_config():
  made = systems.mae(encoder="Ti")
  assert resolve.build(objectives, dict(name="mae", encoder="Ti")) == made
  assert "mae" in dir(systems)
  with pytest.raises(AttributeError, match="has no attribute 'maee'"):
    systems.maee  # noqa: B018


@pytest.mark.parametrize(
  "find", [systems.find, lambda name: resolve.find(objectives, name)]
)
def test_no_such_system_names_the_nearest(find):
  with pytest.raises(UserError, match="did you mean 'spanbert'") as caught:
    find("spanbertt")
  assert "\n" not in str(caught.value)


def test_two_systems_of_one_name(tmp_path):
  for file in ("image/one.py", "image/_private.py", "audio/two/__init__.py"):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
  found = systems.modules_in(tmp_path, "lab")
  assert found == {"one": "lab.image.one", "two": "lab.audio.two"}
  (tmp_path / "audio/one.py").touch()
  with pytest.raises(
    UserError, match="two systems are called 'one': lab.audio.one and"
  ):
    systems.modules_in(tmp_path, "lab")


def test_names_are_listed_without_importing_a_system():
  code = (
    "import sys, maskjax; names = maskjax.systems.names(); "
    "families = [m for m in sys.modules if m.count('.') > 2 "
    "and m.startswith('maskjax.systems.')]; "
    "assert 'mae' in names and not families, families"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(ROOT))
