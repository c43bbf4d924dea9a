"""Encoders whose tokens are scored against a learned set of prototypes."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.initialization import Initializer
from maskjax.normalization import unit


class CosineHead(nn.Module):
  """Scores tokens by their cosines to learned directions, each with a learned length.

  Attributes:
    size: number of directions K.
    kernel_init: of what the directions are taken from; its size is how slowly they
      turn.
    fixed_length: all have the length 1.
    dtype: type of the computation.
  """

  size: int
  kernel_init: Initializer
  fixed_length: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, fixed: Array | bool = False) -> Array:
    """[B, N, D] to float32 [B, N, K].

    Args:
      x: the tokens.
      fixed: let no gradient reach the directions.
    """
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.size))
    directions = unit(kernel, axis=0)
    if not self.fixed_length:
      directions *= self.param("scale", nn.initializers.ones, (self.size,))
    directions = jnp.where(fixed, jax.lax.stop_gradient(directions), directions)
    return jnp.matmul(
      unit(x).astype(self.dtype),
      directions.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
