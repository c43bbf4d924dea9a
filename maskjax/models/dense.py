"""The dense layer of every model."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

INIT = nn.initializers.xavier_uniform()


class Dense(nn.Dense):
  """`flax.linen.Dense` on tokens, as one product of two matrices.

  With the leading axes kept apart, XLA on CPU transposes the activations for
  every gradient of a kernel.
  """

  kernel_init: nn.initializers.Initializer = INIT
  dtype: DTypeLike | None = jnp.float32

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """[..., D] to [..., features]."""
    flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
    return flat.reshape(*inputs.shape[:-1], self.features)
