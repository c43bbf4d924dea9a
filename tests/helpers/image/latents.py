"""What the tests of systems that predict features have in common."""

import jax
import jax.numpy as jnp
import numpy as np

import maskjax as mj
from maskjax.targets import whitened
from maskjax.training.step import init_state, train_step


def digits(count=256, side=8):
  """Real images [B, side, side, 1]."""
  source = mj.data.digits()
  images = np.stack([source[i]["image"] for i in range(count)]).astype(np.float32)
  images = (images / images.max() - 0.3) / 0.37
  shape = (count, side, side, 1)
  images = np.asarray(jax.image.resize(jnp.asarray(images), shape, "linear"))
  return {"image": images, "index": np.arange(count, dtype=np.int32)}


def train(objective, images, *, steps, learning_rate, batch_size=64):
  """Losses, how much features differ between images, and the state.

  The second is the share of normalized features' power that is not the same for all
  images at a position: 0 if the encoder has collapsed, up to 1.
  """
  optimizer = mj.training.adamw(
    learning_rate=learning_rate, num_steps=2 * steps, warmup_steps=steps // 10
  )
  key = jax.random.key(0)
  count = len(images["index"])

  def part(start):
    rows = np.arange(start, start + batch_size) % count
    return {name: values[rows] for name, values in images.items()}

  step = jax.jit(
    lambda state, batch: train_step(
      state,
      batch,
      objective=objective,
      optimizer=optimizer,
      key=key,
      num_steps=steps,
    )
  )
  state = jax.jit(lambda batch: init_state(objective, optimizer, batch, key))(part(0))
  losses = []
  for i in range(steps):
    state, metrics = step(state, part(i * batch_size))
    losses.append(float(metrics["loss"].value()))
  features = jax.jit(lambda variables: whitened(objective.features(variables, images)))
  return np.array(losses), float(features(state.variables).var(axis=0).mean()), state
