"""Dropout, of single numbers and of whole branches."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array


def dropout(module: nn.Module, y: Array, rate: float) -> Array:
  """Drops numbers at random, and scales the others up.

  Args:
    module: whose `dropout` generator decides; without one nothing is dropped.
    y: numbers, of any shape.
    rate: probability that one is dropped.

  Returns:
    The same shape.
  """
  if not rate or not module.has_rng("dropout"):
    return y
  kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, y.shape)
  return jnp.where(kept, y / (1 - rate), 0)


def stochastic_depth(module: nn.Module, y: Array, rate: Array | float) -> Array:
  """Drops a branch of a module's block for random examples, and scales the others up.

  Args:
    module: whose `drop_path` generator decides; without one nothing is dropped.
    y: the branch, [B, ...].
    rate: probability that an example skips it.

  Returns:
    [B, ...].
  """
  if not module.has_rng("drop_path"):
    return y
  keep = 1.0 - jnp.asarray(rate, jnp.float32)
  shape = (y.shape[0],) + (1,) * (y.ndim - 1)
  kept = jax.random.bernoulli(module.make_rng("drop_path"), keep, shape)
  return jnp.where(kept, y / keep.astype(y.dtype), 0)
