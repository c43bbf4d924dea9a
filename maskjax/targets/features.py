"""Features of teachers as targets."""

import jax
import jax.numpy as jnp
from jax import Array


def whitened(features: Array, *, epsilon: float = 1e-6) -> Array:
  """Each token less its mean, over its standard deviation; float32.

  Layer normalisation without parameters (https://arxiv.org/abs/2205.14141, section 3),
  so that a few large channels do not decide.

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


def unit(features: Array) -> Array:
  """Each token at length 1, where it has any; float32.

  Args:
    features: [..., D].

  Example:
    >>> [f"{x:.1f}" for x in unit(jnp.array([3.0, 4.0]))]
    ['0.6', '0.8']
  """
  features = features.astype(jnp.float32)
  squares = jnp.square(features).sum(axis=-1, keepdims=True)
  return features * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
