"""Encoders of whole images that predict all patches by a linear layer."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel


class LinearDecoder(EncoderModel):
  """An encoder of whole images with a linear head.

  Attributes:
    encoder: a `VisionEncoder`, or a `ConvEncoder` with one feature vector a patch.
    size: length T of a prediction.
  """

  size: int

  @nn.compact
  def __call__(self, patches: Array) -> Array:
    """Predicts all patches: [B, N, P] to float32 [B, N, T]."""
    x = self.encoder.patch_tokens(self.encoder(patches))
    return Dense(self.size, dtype=self.encoder.dtype, name="head")(x).astype(
      jnp.float32
    )
