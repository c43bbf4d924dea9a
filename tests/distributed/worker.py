"""One of several processes that train on several meshes; see test_processes.py."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from helpers.running import tiny_config

from maskjax import distributed, experiment, keys, masking, sharding
from maskjax.losses import Loss, Mean
from maskjax.objectives import Variables
from maskjax.training import fit

MESHES = ({"data": 4}, {"fsdp": 4}, {"data": 2, "fsdp": 2})
STEPS = 10


@dataclasses.dataclass(frozen=True)
class HalfMasked:
  """Predicts masked pixels by two layers, which compile in a second."""

  width: int = 64

  def init(self, key, batch):
    size, (one, two) = batch["image"][0].size, jax.random.split(key)
    shapes = {"up": (size, self.width), "down": (self.width, size)}
    return Variables(
      {
        name: {"kernel": jax.random.normal(k, shapes[name]) / shapes[name][0] ** 0.5}
        for name, k in (("up", one), ("down", two))
      }
    )

  def loss(self, variables, batch, step):
    params = variables.params
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    grid = pixels.shape[1:]
    example_keys = keys.example_keys(step.key, batch)
    masked = masking.draw(
      masking.random, example_keys, grid, num_masked=grid[0] // 2
    ).masked
    x = jnp.tanh(jnp.where(masked, 0, pixels) @ params["up"]["kernel"])
    x = sharding.constrain_batch(x) @ params["down"]["kernel"]
    return Loss.of(Mean.of(jnp.square(x - pixels), masked))


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
    HalfMasked(),
    parts.train,
    optimizer=parts.optimizer,
    num_steps=STEPS,
    mesh=parts.mesh,
    writer=writer,
    log_every=1,
  )
  return writer.losses


def two_epochs():
  """The indices of the examples in the source of this process, step by step."""
  parts = experiment.prepare(tiny_config())
  steps = -(-2 * len(parts.train.source) // parts.train.batch_size)
  with parts.train(0) as batches:
    return [next(batches)["index"].tolist() for _ in range(steps)]


if __name__ == "__main__":
  distributed.initialize()
  found = {"losses": [train(mesh) for mesh in MESHES], "seen": two_epochs()}
  Path(sys.argv[1], f"{jax.process_index()}.json").write_text(json.dumps(found))
  distributed.wait_for_all()
