"""Encoders that see mask tokens, and predict by a linear layer."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.dense import Dense


class MaskedEncoder(nn.Module):
  """An encoder with mask tokens inside, and a linear head.

  Attributes:
    encoder: a `VisionEncoder` with `hides_by="token"`, or another module like it.
    size: length T of a prediction.
  """

  encoder: Any
  size: int

  @nn.compact
  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts hidden patches: [B, N, P] to float32 [B, M, T]; or all, [B, N, T]."""
    x = self.encoder.patch_tokens(self.encoder(patches, mask))
    x = x if visible_too else mask.masked(x)
    return Dense(self.size, dtype=self.encoder.dtype, name="head")(x).astype(
      jnp.float32
    )

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return self.encoder(patches)
