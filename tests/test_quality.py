"""Formatter, linter, type checker, and what importing must not do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
  "command",
  [
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy", "maskjax"),
  ],
  ids=["formatter", "linter", "types"],
)
def test_tools_have_no_complaint(command):
  done = subprocess.run(
    [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr


def test_import_defines_no_flags_and_starts_no_backend():
  code = (
    "import sys, maskjax\n"
    "from absl import flags\n"
    "from jax._src import xla_bridge\n"
    "assert not [f for f in flags.FLAGS if 'config' in f or 'workdir' in f]\n"
    "assert not xla_bridge.backends_are_initialized()\n"
    "assert 'tensorflow' not in sys.modules\n"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
