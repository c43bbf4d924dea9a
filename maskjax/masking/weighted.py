"""Masks whose visible tokens are drawn with given weights."""

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.masking.selection import highest


def weighted(key: Array, weights: Array, num_masked: int) -> Array:
  """Masks all tokens except some drawn by weight, without replacement.

  With a teacher's attention as weights, this is MaskAlign's attentive masking
  (https://arxiv.org/abs/2211.08887, section 3.2). The tokens with the largest log
  weight plus Gumbel noise are such a draw (https://arxiv.org/abs/1903.06059).

  Args:
    key: the example's key.
    weights: [N], of one example's tokens, none negative.
    num_masked: how many tokens to mask.

  Returns:
    bool [N], exactly `num_masked` True.

  Example:
    >>> weighted(jax.random.key(0), jnp.array([0.0, 1.0, 0.0, 1.0]), 2).tolist()
    [True, False, True, False]
  """
  noise = jax.random.gumbel(key, weights.shape)
  return ~highest(jnp.log(weights) + noise, weights.shape[0] - num_masked)
