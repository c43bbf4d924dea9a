"""The page "Add a system" is followed, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers.quick_xla import QUICK_XLA
from helpers.running import ROOT

PAGE = (ROOT / "docs/add_a_system.md").read_text()
FILES = (
  "maskjax/systems/image/mean_color.py",
  "configs/image/mean_color.py",
  "tests/systems/image/test_mean_color.py",
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
  """A copy of the repository with the page's three files, and no other change."""
  root = tmp_path_factory.mktemp("copy")
  for folder in ("maskjax", "configs"):
    kept = shutil.ignore_patterns("__pycache__", "*.curves.json")
    shutil.copytree(ROOT / folder, root / folder, ignore=kept)
  for folder in ("helpers", "systems/image"):
    (root / "tests" / folder).mkdir(parents=True)
  shutil.copytree(ROOT / "tests/helpers", root / "tests/helpers", dirs_exist_ok=True)
  for file in ("conftest.py", "mutants.py"):
    shutil.copy(ROOT / "tests" / file, root / "tests" / file)
  shutil.copy(ROOT / "pyproject.toml", root)
  blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
  assert len(blocks) == len(FILES)
  for file, block in zip(FILES, blocks, strict=True):
    assert f"`{file}`" in PAGE
    (root / file).write_text(block)
  return root


def run(root, *command):
  done = subprocess.run(
    [sys.executable, *command],
    cwd=root,
    env={**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": QUICK_XLA},
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_its_test_passes_and_notices_what_is_missing(copy):
  assert "1 passed" in run(copy, "-m", "pytest", "-q", "-n", "0", FILES[2])
  assert "mean_color: noticed" in run(copy, "tests/mutants.py", "mean_color")


def test_it_is_listed_and_trains(copy, tmp_path):
  assert "mean_color" in run(copy, "-m", "maskjax.main", "list")
  config = ("--config", "configs/image/mean_color.py:digits")
  short = ("--config.num_steps=2", "--config.optimizer.warmup_steps=0")
  quiet = ("--config.eval.probes=()", "--config.log_every=1")
  folder = ("--workdir", str(tmp_path / "run"))
  run(copy, "-m", "maskjax.main", "train", *config, *short, *quiet, *folder)
  assert "train/loss" in (tmp_path / "run/metrics.jsonl").read_text()
