"""Attention: one function for every model."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.dense import Dense


def attend(query: Array, key: Array, value: Array) -> Array:
  """Scaled dot-product attention, softmax in float32.

  Batch and heads lead, so that each product is a plain matrix product over the
  last two axes on every kind of device.

  Args:
    query: [B, H, N, D].
    key: [B, H, K, D].
    value: [B, H, K, D].

  Returns:
    [B, H, N, D], in the type of `value`.
  """
  scores = jnp.einsum(
    "bhnd,bhkd->bhnk",
    query * query.shape[-1] ** -0.5,
    key,
    preferred_element_type=jnp.float32,
  )
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  return jnp.einsum("bhnk,bhkd->bhnd", weights, value)


class SelfAttention(nn.Module):
  """Multi-head self-attention.

  Attributes:
    heads: number of heads; divides the width.
    dtype: type of the computation.
  """

  heads: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, num_queries: int | None = None) -> Array:
    """Attends from the last `num_queries` tokens (all when None) to all.

    Args:
      x: [B, N, D].
      num_queries: how many of the last tokens ask.

    Returns:
      [B, num_queries or N, D].
    """
    width = x.shape[-1]

    def project(tokens: Array, name: str) -> Array:
      y = Dense(width, dtype=self.dtype, name=name)(tokens)
      # [B, N, D] -> [B, heads, N, D / heads]
      return y.reshape(*y.shape[:2], self.heads, -1).swapaxes(1, 2)

    asking = x if num_queries is None else x[:, -num_queries:]
    y = attend(project(asking, "query"), project(x, "key"), project(x, "value"))
    # [B, heads, N, D / heads] -> [B, N, D]
    y = y.swapaxes(1, 2).reshape(asking.shape)
    return Dense(width, dtype=self.dtype, name="out")(y)
