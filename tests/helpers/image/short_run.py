"""Short runs on real digits of 8x8 pixels."""

import jax

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


def train(objective, *, num_steps, learning_rate):
  """Trains on one device.

  Returns:
    The losses of the steps, a batch, and the mean features of its images.
  """
  data = mj.data.Pipeline(
    source=mj.data.digits(), batch_size=64, transforms=[mj.data.to_float]
  )
  writer = Losses()
  state = mj.fit(
    objective,
    data,
    optimizer=mj.training.adamw(learning_rate=learning_rate, num_steps=num_steps),
    num_steps=num_steps,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    writer=writer,
    log_every=1,
  )
  with data(0) as batches:
    batch = next(batches)
  features = jax.jit(objective.features)(state.variables, batch)
  return writer.values, batch, jax.device_get(features).mean(axis=1)
