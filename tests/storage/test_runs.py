"""Runs whose workdir is on object storage, and what befalls them."""

import io
import json
import os
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers.quick_xla import QUICK_XLA
from helpers.running import DIGITS, ROOT, TINY, finish, process, tiny_config
from PIL import Image

from maskjax import storage
from maskjax import workdir as workdirs

STEPS = 6
FLAGS = (*TINY, f"--config.num_steps={STEPS}", "--config.checkpoint.every=2")
FLAGS = (*FLAGS, "--config.checkpoint.keep=9", "--config.log_every=1")
FLAGS = (*FLAGS, "--config.eval.pictures=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """The same run in a local workdir, and where its compiled programs are."""
  root = tmp_path_factory.mktemp("local")
  cache = f"--config.compilation_cache={root / 'cache'}"
  code, _, err = process(
    "train", "--config", DIGITS, "--workdir", root / "run", *FLAGS, cache
  )
  assert (code, err) == (0, "")
  return root / "run", cache


def start(workdir, cache):
  command = ("train", "--config", DIGITS, "--workdir", workdir, *FLAGS, cache)
  return subprocess.Popen(
    [sys.executable, "-m", "maskjax.main", *command],
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK_XLA},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for(seen, run):
  """Waits until a request was seen; ends a run that does not make it."""
  until = time.monotonic() + 180
  while not seen.wait(1):
    if run.poll() is not None or time.monotonic() > until:
      pytest.fail(f"the run did not save: {finish(run, timeout=0)}")


def saving(step):
  """A request that begins to write the arrays of a checkpoint."""
  return rb"checkpoints(/|%%2F)%d(/|%%2F)params(/|%%2F)ocdbt" % step


def messages(err):
  """The messages of a run, but for the log of TensorStore's C++."""
  return [x for x in err.splitlines() if not re.match(r"[IWE]\d{4} ", x)]


def params(workdir, step):
  reader = workdirs.checkpoints(workdir, tiny_config())
  try:
    return reader.restore_weights(step)
  finally:
    reader.close()


def losses(text):
  lines = [json.loads(line) for line in text.splitlines()]
  return [(x["step"], x["train/loss"]) for x in lines if "train/loss" in x]


def test_server_and_run_are_killed_while_they_save(store, undisturbed, call, tmp_path):
  expected, cache = undisturbed
  seen = store.proxy.watch(saving(2))
  run = start(store.root, cache)
  wait_for(seen, run)
  store.kill()
  time.sleep(2)
  seen = store.proxy.watch(saving(4))
  store.start()
  # It has tried again until the server was back.
  wait_for(seen, run)
  run.kill()
  finish(run)
  assert workdirs.checkpoints(store.root, tiny_config()).steps() in ([2], [2, 4])
  jax.tree.map(
    np.testing.assert_array_equal, params(store.root, 2), params(expected, 2)
  )

  begun = time.monotonic()
  out, err = finish(run := start(store.root, cache))
  assert run.returncode == 0, err
  assert "waiting up to 10 seconds for process" in out
  assert all("step 4 in" in x and "was not finished" in x for x in messages(err))
  assert time.monotonic() - begun > 10
  jax.tree.map(
    np.testing.assert_array_equal, params(store.root, STEPS), params(expected, STEPS)
  )
  assert losses(store.read("metrics.jsonl").decode()) == losses(
    (expected / "metrics.jsonl").read_text()
  )
  assert json.loads(store.read("config.json")) == json.loads(
    (expected / "config.json").read_text()
  )
  files = [f for f in storage.files(store.root) if not f.startswith("checkpoints")]
  events = [f for f in files if f.startswith("events.out.tfevents.")]
  assert len(events) == 2 and set(files) - set(events) == {
    "config.json",
    "metrics.jsonl",
    "reconstructions.png",
  }
  with Image.open(io.BytesIO(store.read("reconstructions.png"))) as picture:
    assert picture.width > 3 * 64

  # What else reads and writes a workdir knows no scheme: each is tried with one.
  if store.root.startswith("gs://"):
    config = ("--config", DIGITS, *FLAGS, cache)
    code, out, err = process("eval", "--workdir", store.root, *config)
    assert (code, messages(err)) == (0, [])
    assert f"reconstructions of step {STEPS}: {store.root}/reconstructions.png" in out
    return
  exported = tmp_path / "exported"
  assert call("convert", "--workdir", store.root, "--to_hf", exported)[0] == 0
  imported = f"{store.root}-imported"
  config = ("--config", DIGITS, *TINY)
  assert call("convert", "--from_hf", exported, "--workdir", imported, *config)[0] == 0
  jax.tree.map(
    np.testing.assert_array_equal, params(imported, 0)[1], params(expected, STEPS)[1]
  )
