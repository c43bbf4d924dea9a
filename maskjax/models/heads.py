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
  """Tokens to heads: [B, N, C] to [H, B, N, D].

  Attributes:
    heads: number of heads H; divides C.
    tokens_last: gives [H, B, D, N].
    dtype: type of the computation.
  """

  heads: int
  tokens_last: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    kernel, bias = _parameters(self, width)
    # [C, C] -> [C, H, D], [C] -> [H, D]
    kernel, bias = kernel.reshape(width, self.heads, -1), bias.reshape(self.heads, -1)
    x = x.astype(self.dtype)
    if self.tokens_last:
      return jnp.einsum("bnc,chd->hbdn", x, kernel) + bias[:, None, :, None]
    return jnp.einsum("bnc,chd->hbnd", x, kernel) + bias[:, None, None, :]


class OutOfHeads(nn.Module):
  """Heads to tokens: [H, B, N, D] to [B, N, C].

  Attributes:
    tokens_last: takes [H, B, D, N].
    dtype: type of the computation.
  """

  tokens_last: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    heads, depth = len(x), x.shape[2 if self.tokens_last else 3]
    kernel, bias = _parameters(self, heads * depth)
    # [C, C] -> [H, D, C]
    kernel = kernel.reshape(heads, depth, -1)
    equation = "hbdn,hdc->bnc" if self.tokens_last else "hbnd,hdc->bnc"
    return jnp.einsum(equation, x.astype(self.dtype), kernel) + bias


def _parameters(layer: IntoHeads | OutOfHeads, width: int) -> tuple[Array, Array]:
  """The kernel [C, C] and the bias [C] of a layer, in its type of computation."""
  kernel = layer.param("kernel", INIT, (width, width), jnp.float32)
  bias = layer.param("bias", nn.initializers.zeros_init(), (width,), jnp.float32)
  return kernel.astype(layer.dtype), bias.astype(layer.dtype)
