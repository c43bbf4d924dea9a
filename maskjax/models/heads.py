"""Dense layers into the heads of attention and out of them, for TPUs.

They have the parameters of `Dense`. Their products put the axes in the order that
attention reads, where transposing the outcome of a `Dense` would copy it.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.dense import INIT


class IntoHeads(nn.Module):
  """Tokens to heads, heads first and tokens last: [B, N, C] to [H, B, D, N].

  Attributes:
    heads: number of heads H; divides C.
    dtype: type of the computation.
  """

  heads: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    kernel, bias = _parameters(self, width)
    # [C, C] -> [C, H, D]
    split = kernel.reshape(width, self.heads, -1)
    y = jnp.einsum("bnc,chd->hbdn", x.astype(self.dtype), split)
    return y + bias.reshape(self.heads, 1, -1, 1)


class OutOfHeads(nn.Module):
  """Heads to tokens, the reverse of `IntoHeads`: [H, B, D, N] to [B, N, C].

  Attributes:
    dtype: type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    heads, _, depth, _ = x.shape
    kernel, bias = _parameters(self, heads * depth)
    # [C, C] -> [H, D, C]
    joined = kernel.reshape(heads, depth, -1)
    return jnp.einsum("hbdn,hdc->bnc", x.astype(self.dtype), joined) + bias


def _parameters(layer: IntoHeads | OutOfHeads, width: int) -> tuple[Array, Array]:
  """The kernel [C, C] and the bias [C] of a layer, in its type of computation."""
  kernel = layer.param("kernel", INIT, (width, width), jnp.float32)
  bias = layer.param("bias", nn.initializers.zeros_init(), (width,), jnp.float32)
  return kernel.astype(layer.dtype), bias.astype(layer.dtype)
