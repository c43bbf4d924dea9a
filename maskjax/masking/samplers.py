"""Mask samplers: `sample(key, grid, num_hidden) -> bool [N]`, one example each."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["random"]


def random(key: Array, grid: Sequence[int], num_hidden: int) -> Array:
  """Hides tokens uniformly at random, without replacement.

  The tokens with the smallest noise stay visible, as in MAE
  (https://arxiv.org/abs/2111.06377, section 3).

  Args:
    key: the example's key.
    grid: sides of the token grid; N is their product.
    num_hidden: how many tokens to hide.

  Returns:
    bool [N], exactly `num_hidden` True.

  Example:
    >>> int(random(jax.random.key(0), (4, 4), 12).sum())
    12
  """
  length = math.prod(grid)
  noise = jax.random.uniform(key, (length,))
  rank = jnp.argsort(jnp.argsort(noise))
  return rank >= length - num_hidden
