"""A run that is killed ends as one that is not."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import pytest
from helpers.quick_xla import QUICK_XLA
from helpers.running import DIGITS, ROOT, TINY, finish

STEPS = 300
EVERY = 20


def start(workdir, cache):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "maskjax.main", "train", "--config", DIGITS),
      *("--workdir", str(workdir), *TINY),
      f"--config.num_steps={STEPS}",
      "--config.ema_decay=0.9",
      f"--config.checkpoint.every={EVERY}",
      f"--config.log_every={EVERY}",
      f"--config.compilation_cache={cache}",
    ],
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK_XLA},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def succeed(run):
  _, err = finish(run)
  assert run.returncode == 0, err


def kill_when(run, due, *, after=0.0):
  """Sends SIGKILL some seconds after `due()` became true."""
  until = time.monotonic() + 300
  while not due():
    assert run.poll() is None, run.stderr.read()
    assert time.monotonic() < until
    time.sleep(0.001)
  time.sleep(after)
  run.send_signal(signal.SIGKILL)
  assert run.wait() == -signal.SIGKILL
  run.stderr.close()


def newest(workdir):
  folder = workdir / "checkpoints"
  names = os.listdir(folder) if folder.is_dir() else []
  return max((int(name) for name in names if name.isdigit()), default=0)


def saving(workdir):
  folder = workdir / "checkpoints"
  return folder.is_dir() and any("tmp" in name for name in os.listdir(folder))


def state(workdir):
  """All arrays of the last checkpoint, as they are on disk."""
  import orbax.checkpoint as ocp

  folder = workdir / "checkpoints" / str(newest(workdir))
  with ocp.PyTreeCheckpointer() as reader, warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it reads onto the devices of the writer
    arrays = {x: reader.restore(folder / x) for x in ("params", "ema", "training")}
  return int(folder.name), jax.tree.map(np.asarray, arrays)


def losses(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  return [(x["step"], x["train/loss"]) for x in lines if "train/loss" in x]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  root = tmp_path_factory.mktemp("resume")
  succeed(start(root / "undisturbed", root / "cache"))
  return root / "undisturbed"


def test_killed_twice(undisturbed, tmp_path):
  workdir, cache = tmp_path / "run", undisturbed.parent / "cache"
  rng = np.random.default_rng()
  kill_when(start(workdir, cache), lambda: saving(workdir))
  before, moment = newest(workdir), rng.uniform(0, 0.2)
  kill_when(start(workdir, cache), lambda: newest(workdir) > before, after=moment)
  assert newest(workdir) < STEPS, "the run was over before it could be killed"
  succeed(start(workdir, cache))

  (step, found), (last, expected) = state(workdir), state(undisturbed)
  assert step == last == STEPS
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert losses(workdir) == losses(undisturbed)
