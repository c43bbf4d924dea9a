"""The small setting of every system starts, on real images that scikit-learn ships."""

import jax
import numpy as np
import pytest
from idx import write_idx
from sklearn.datasets import load_digits

from maskjax import config as configs
from maskjax import experiment, metrics, sharding
from maskjax.systems import systems
from maskjax.training import fit


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Digits as Fashion-MNIST comes: 28x28 pixels, in files of its format."""
  folder = tmp_path_factory.mktemp("images")
  images, labels = load_digits(return_X_y=True)
  grown = np.kron(images.reshape(-1, 8, 8) * 15, np.ones((3, 3))).astype(np.uint8)
  grown = np.pad(grown, ((0, 0), (2, 2), (2, 2)))
  for name, rows in (("train", slice(0, 64)), ("t10k", slice(64, 96))):
    write_idx(folder / f"{name}-images-idx3-ubyte", grown[rows])
    write_idx(folder / f"{name}-labels-idx1-ubyte", labels[rows].astype(np.uint8))
  return folder


@pytest.mark.parametrize("name", [s.name for s in systems() if s.family == "image"])
def test_two_steps(name, root, tmp_path):
  (system,) = [s for s in systems() if s.name == name]
  config = configs.load(f"{system.config}:small")
  config.batch_size, config.optimizer.warmup_steps = 16, 0
  for data in (config.data.train, config.data.test):
    data.root = str(root)
  random_teachers(config.objective)
  prepared = experiment.prepare(config)
  file = tmp_path / "metrics.jsonl"
  fit(
    prepared.objective,
    prepared.train,
    optimizer=prepared.optimizer,
    num_steps=2,
    log_every=1,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    writer=metrics.Writers([metrics.JsonLines(file)]),
  )
  losses = [line["train/loss"] for line in metrics.read_json_lines(file)]
  assert len(losses) == 2 and np.isfinite(losses).all()


def random_teachers(objective):
  """Leaves the teachers of an objective as they are made."""
  for key, value in objective.items():
    if isinstance(value, configs.ConfigDict):
      random_teachers(value)
    elif key == "workdir":
      objective[key] = ""
