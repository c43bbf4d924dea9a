"""The dense layer of every model."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.sharding import for_tpu

INIT = nn.initializers.xavier_uniform()


class Dense(nn.Dense):
  """`flax.linen.Dense` on tokens, on CPU as one product of two matrices.

  With the leading axes kept apart, XLA on CPU transposes the activations for
  every gradient of a kernel. With them merged, XLA on TPU may not choose in which
  order they lie in memory, and copies them instead.
  """

  kernel_init: nn.initializers.Initializer = INIT
  dtype: DTypeLike | None = jnp.float32

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """[..., D] to [..., features]."""
    if for_tpu():
      return super().__call__(inputs)
    flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
    return flat.reshape(*inputs.shape[:-1], self.features)
