"""Dense layers into the heads of attention and out of them, for TPUs.

They have the parameters of `Dense`. Their products put the axes in the order that
attention reads, where transposing the output of a `Dense` would copy it.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.initialization import LayerInit


class DenseToHeads(nn.Module):
  """Tokens to heads: [B, N, E] to [H, B, N, D].

  Attributes:
    width: H * D.
    heads: number of heads H.
    use_bias: add a bias.
    tokens_last: gives [H, B, D, N].
    drawn: how kernel and bias are, at first.
    dtype: type of the computation.
  """

  width: int
  heads: int
  use_bias: bool = True
  tokens_last: bool = False
  drawn: LayerInit = LayerInit()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    # [E, C] -> [E, H, D]
    kernel = _kernel(self, (x.shape[-1], self.width)).reshape(
      x.shape[-1], self.heads, -1
    )
    x = x.astype(self.dtype)
    equation = "bnc,chd->hbdn" if self.tokens_last else "bnc,chd->hbnd"
    y = jnp.einsum(equation, x, kernel)
    if not self.use_bias:
      return y
    # [C] -> [H, D]
    bias = _bias(self, x.shape[-1], self.width).reshape(self.heads, -1)
    return y + (bias[:, None, :, None] if self.tokens_last else bias[:, None, None, :])


class DenseFromHeads(nn.Module):
  """Heads to tokens: [H, B, N, D] to [B, N, C].

  Attributes:
    use_bias: add a bias.
    tokens_last: takes [H, B, D, N].
    drawn: how kernel and bias are, at first.
    dtype: type of the computation.
  """

  use_bias: bool = True
  tokens_last: bool = False
  drawn: LayerInit = LayerInit()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    heads, depth = len(x), x.shape[2 if self.tokens_last else 3]
    # [C, C] -> [H, D, C]
    kernel = _kernel(self, (heads * depth,) * 2).reshape(heads, depth, -1)
    equation = "hbdn,hdc->bnc" if self.tokens_last else "hbnd,hdc->bnc"
    y = jnp.einsum(equation, x.astype(self.dtype), kernel)
    return y + _bias(self, heads * depth, heads * depth) if self.use_bias else y


def _kernel(layer: DenseToHeads | DenseFromHeads, shape: tuple[int, int]) -> Array:
  kernel = layer.param("kernel", layer.drawn.kernel_init, shape, jnp.float32)
  return kernel.astype(layer.dtype)


def _bias(layer: DenseToHeads | DenseFromHeads, inputs: int, width: int) -> Array:
  bias = layer.param("bias", layer.drawn.of_bias(inputs), (width,), jnp.float32)
  return bias.astype(layer.dtype)
