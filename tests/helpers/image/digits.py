"""Short runs on the digits of scikit-learn, for the tests of systems."""

import jax
import numpy as np

import maskjax as mj
from maskjax import sharding


class Losses:
  """A writer that keeps the losses."""

  def __init__(self):
    self.values = []

  def advance(self, step):
    pass

  def write(self, step, values):
    self.values.append(values["train/loss"])

  def image(self, step, name, picture):
    pass

  def close(self):
    pass


def digits(batch_size=32, **keywords):
  transforms = [mj.data.to_float]
  return mj.data.Pipeline(
    source=mj.data.digits(), batch_size=batch_size, transforms=transforms, **keywords
  )


def train(
  objective, num_steps, *, learning_rate=3e-3, devices=1, axes=None, **keywords
):
  """The loss of each step, and the last state."""
  writer = Losses()
  state = mj.fit(
    objective,
    digits(),
    optimizer=mj.training.adamw(learning_rate=learning_rate, num_steps=num_steps),
    num_steps=num_steps,
    mesh=sharding.make_mesh(**(axes or {}), devices=jax.devices()[:devices]),
    writer=writer,
    log_every=1,
    **keywords,
  )
  return np.array(writer.values), state


def held_out(count=128):
  """The first held-out digits, as one batch."""
  source = mj.data.digits(split="test")
  records = [mj.data.to_float(source[i]) for i in range(count)]
  return {
    "image": np.stack([record["image"] for record in records]),
    "index": np.arange(count),
  }
