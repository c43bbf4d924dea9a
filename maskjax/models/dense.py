"""The dense layer of every model."""

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import Array, lax
from jax.typing import DTypeLike

from maskjax.models.initialization import XAVIER, ZEROS, Initializer, LayerInit
from maskjax.sharding import for_tpu


class Dense(nn.Module):
  """A dense layer on tokens, on CPU as one product of two matrices.

  With the leading axes kept apart, XLA on CPU transposes the activations for
  every gradient of a kernel. With them merged, XLA on TPU may not choose in which
  order they lie in memory, and copies them instead.

  Attributes:
    features: number of outputs.
    use_bias: add a bias.
    kernel_init: see `maskjax.models.initialization.LayerInit`.
    bias_init: likewise.
    dtype: type of the computation; parameters are float32.
  """

  features: int
  use_bias: bool = True
  kernel_init: Initializer = XAVIER
  bias_init: Initializer | None = ZEROS
  dtype: DTypeLike | None = jnp.float32

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """[..., D] to [..., features]."""
    width = inputs.shape[-1]
    x = inputs if for_tpu() else inputs.reshape(-1, width)
    kernel = self.param("kernel", self.kernel_init, (width, self.features), jnp.float32)
    bias = None
    if self.use_bias:
      init = LayerInit(bias_init=self.bias_init).of_bias(width)
      bias = self.param("bias", init, (self.features,), jnp.float32)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    if bias is not None:
      y += jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,))
    return y if for_tpu() else y.reshape(*inputs.shape[:-1], self.features)
