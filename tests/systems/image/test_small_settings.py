"""The small setting of every system starts, on real images that scikit-learn ships."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.idx import write_idx
from helpers.quick_xla import QUICK_XLA
from helpers.running import ROOT
from sklearn.datasets import load_digits

from maskjax.systems import records

NAMES = [system.name for system in records() if system.family == "image"]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  """The losses of two steps of each, on digits that look as Fashion-MNIST comes."""
  folder = tmp_path_factory.mktemp("images")
  images, labels = load_digits(return_X_y=True)
  grown = np.kron(images.reshape(-1, 8, 8) * 15, np.ones((3, 3))).astype(np.uint8)
  grown = np.pad(grown, ((0, 0), (2, 2), (2, 2)))
  for name, rows in (("train", slice(0, 64)), ("t10k", slice(64, 96))):
    write_idx(folder / f"{name}-images-idx3-ubyte", grown[rows])
    write_idx(folder / f"{name}-labels-idx1-ubyte", labels[rows].astype(np.uint8))
  command = [sys.executable, ROOT / "tests/helpers/image/start.py"]
  done = subprocess.run(
    [*command, folder, folder / "results.json", *NAMES],
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK_XLA},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(started, name):
  losses = started[name]
  assert isinstance(losses, list), losses
  assert len(losses) == 2 and np.isfinite(losses).all()
