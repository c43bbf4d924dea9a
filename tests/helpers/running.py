"""Runs of the command line, for the tests."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from helpers.quick_xla import QUICK_XLA
from ml_collections import ConfigDict

from maskjax import config as configs

Refused = Callable[..., str]  # see the fixture `refused`

ROOT = Path(__file__).parents[2]
DIGITS = "configs/image/mae.py:digits"
TINY = (
  "--config.num_steps=2",
  "--config.batch_size=16",
  "--config.optimizer.warmup_steps=0",
  "--config.objective.encoder.depth=1",
  "--config.objective.decoder.depth=1",
  "--config.objective.decoder.width=32",
  "--config.checkpoint.every=1",
  "--config.eval.batch_size=360",
  "--config.eval.probes=()",
  "--config.eval.pictures=0",
)


def tiny_config() -> ConfigDict:
  """The config of `DIGITS` with `TINY`."""
  config = configs.load(DIGITS)
  config.num_steps = 2
  config.batch_size = 16
  config.optimizer.warmup_steps = 0
  config.objective.encoder.depth = 1
  config.objective.decoder.depth = 1
  config.objective.decoder.width = 32
  config.checkpoint.every = 1
  config.eval.batch_size = 360
  config.eval.probes = ()
  config.eval.pictures = 0
  return config


def process(*arguments: object) -> tuple[int, str, str]:
  """Runs a command as a process of its own with one device."""
  done = subprocess.run(
    [sys.executable, "-m", "maskjax.main", *map(str, arguments)],
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK_XLA},
    capture_output=True,
    text=True,
    timeout=300,
  )
  return done.returncode, done.stdout, done.stderr


def finish(run: subprocess.Popen[str], timeout: float = 300) -> tuple[str, str]:
  """Waits for a process: what it wrote. One that hangs shows where its threads are."""
  try:
    return run.communicate(timeout=timeout)
  except subprocess.TimeoutExpired:
    run.send_signal(signal.SIGABRT)  # conftest.py sets PYTHONFAULTHANDLER
    found = run.communicate(timeout=10)  # or its children hold on too
    raise AssertionError(f"not done after {timeout} s: {found}") from None


def check_refusal(code: int, err: str, *, expected: int = 2) -> str:
  assert code == expected, err
  assert err.endswith("\n") and err.count("\n") == 1, err
  assert err.startswith("maskjax: ")
  return err


def check_warning(err: str) -> str:
  assert err.endswith("\n") and err.count("\n") == 1, err
  assert err.startswith("maskjax: warning: ")
  return err


def listing(folder: Path) -> dict[str, str]:
  """All that lies in a folder, with hashes of the files' contents."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    if path.is_file()
    else "folder"
    for path in sorted(folder.rglob("*"))
  }
