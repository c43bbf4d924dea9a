"""Assignments to clusters that use all of them alike."""

import jax.numpy as jnp
from jax import Array


def sinkhorn(scores: Array, where: Array, *, steps: int) -> Array:
  """Shares clusters out evenly among examples (https://arxiv.org/abs/1306.0895).

  Args:
    scores: logarithms of the first shares, [..., B, K].
    where: which examples take part, bool [B]; others get nothing.
    steps: how often each cluster's shares, and then each example's, are made to sum
      to 1.

  Returns:
    float32 [..., B, K], the rows sum to 1.

  Example:
    >>> even = sinkhorn(jnp.array([[0.0, 9.0], [0.0, 7.0]]), jnp.ones(2, bool), steps=9)
    >>> [f"{x:.2f}" for x in even.ravel()]
    ['0.27', '0.73', '0.73', '0.27']
  """
  part = where[:, None]
  scores = jnp.where(part, scores.astype(jnp.float32), -1e30)
  shares = jnp.where(part, jnp.exp(scores - scores.max(axis=-2, keepdims=True)), 0)
  for _ in range(steps):
    shares = shares / (shares.sum(axis=-2, keepdims=True) + 1e-8)
    shares = shares / (shares.sum(axis=-1, keepdims=True) + 1e-8)
  return shares
