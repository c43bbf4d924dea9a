"""One of several processes that train on several meshes; see test_processes.py."""

import json
import sys
from pathlib import Path

import jax
from running import tiny_config

from maskjax import distributed, experiment
from maskjax.training import fit

MESHES = ({"data": 4}, {"fsdp": 4}, {"data": 2, "fsdp": 2})
STEPS = 10


class Losses:
  """Keeps the losses that it is given to write."""

  def __init__(self):
    self.losses = []

  def advance(self, step):
    pass

  def write(self, step, values):
    self.losses.append(values["train/loss"])

  def close(self):
    pass


def train(mesh):
  config = tiny_config()
  config.num_steps = STEPS
  config.mesh.update({"data": 1, "fsdp": 1, **mesh})
  parts = experiment.prepare(config)
  writer = Losses()
  fit(
    parts.objective,
    parts.train,
    optimizer=parts.optimizer,
    num_steps=STEPS,
    mesh=parts.mesh,
    writer=writer,
    log_every=1,
  )
  return writer.losses


def two_epochs():
  """The places in the source of the examples of this process, step by step."""
  parts = experiment.prepare(tiny_config())
  steps = -(-2 * len(parts.train.source) // parts.train.batch_size)
  with parts.train(0) as batches:
    return [next(batches)["index"].tolist() for _ in range(steps)]


if __name__ == "__main__":
  distributed.initialize()
  found = {"losses": [train(mesh) for mesh in MESHES], "seen": two_epochs()}
  Path(sys.argv[1], f"{jax.process_index()}.json").write_text(json.dumps(found))
  distributed.wait_for_all()
