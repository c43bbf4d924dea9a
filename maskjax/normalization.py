"""Vectors brought to one length, or to one mean and std."""

import jax
import jax.numpy as jnp
from jax import Array


def unit(vectors: Array, *, axis: int = -1) -> Array:
  """Vectors of length 1 in float32; those of 0 stay 0, without gradient.

  Args:
    vectors: of any shape.
    axis: along which they lie.

  Example:
    >>> unit(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
  """
  vectors = vectors.astype(jnp.float32)
  squares = jnp.square(vectors).sum(axis=axis, keepdims=True)
  some = squares > 0
  return jnp.where(some, vectors * jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)


def whitened(features: Array, *, epsilon: float = 1e-6) -> Array:
  """Each token less its mean, over its std; float32.

  Layer normalization without parameters (https://arxiv.org/abs/2205.14141, section 3),
  so that a few large channels do not dominate an error.

  Args:
    features: [..., D].
    epsilon: added to the variance.

  Example:
    >>> whitened(jnp.array([1.0, 3.0]), epsilon=0.0).tolist()
    [-1.0, 1.0]
  """
  features = features.astype(jnp.float32)
  mean = features.mean(axis=-1, keepdims=True)
  variance = features.var(axis=-1, keepdims=True)
  return (features - mean) / jnp.sqrt(variance + epsilon)
