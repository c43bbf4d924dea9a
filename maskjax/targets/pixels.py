"""Pixels as targets."""

import jax.numpy as jnp
from jax import Array

EPSILON = 1e-6


def pixels(patches: Array) -> Array:
  """The pixels themselves: [..., P] to [..., P]."""
  return patches


def normalized_pixels(patches: Array) -> Array:
  """Pixels less their patch's mean, over its standard deviation.

  The variance is the unbiased one, with 1e-6 added, as in MAE
  (https://arxiv.org/abs/2111.06377, section 3, `norm_pix_loss`).

  Args:
    patches: [..., P] with P of at least 2.

  Returns:
    float32 [..., P].

  Example:
    >>> normalized_pixels(jnp.array([1.0, 3.0]))
    Array([-0.7071066,  0.7071066], dtype=float32)
  """
  mean, deviation = patch_statistics(patches)
  return (patches - mean) / deviation


def patch_statistics(patches: Array) -> tuple[Array, Array]:
  """Each patch's mean and standard deviation: [..., P] to two [..., 1]."""
  patches = patches.astype(jnp.float32)
  mean = patches.mean(axis=-1, keepdims=True)
  variance = patches.var(axis=-1, keepdims=True, ddof=1)
  return mean, jnp.sqrt(variance + EPSILON)
