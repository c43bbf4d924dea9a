"""Encoders that see mask tokens, and predict by a linear layer."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import dense_like
from maskjax.tokens import unpatchify


class MaskedEncoder(EncoderModel):
  """An encoder with mask tokens inside, and a linear head.

  Attributes:
    encoder: a `VisionEncoder` with `masked_patches="token"`, or another module like it.
    size: length T of a prediction.
    stride: rows and columns of patches for which each of the encoder's tokens
      predicts; more than 1 after an encoder that merges patches, as Swin does.
  """

  size: int
  stride: int = 1

  @nn.compact
  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, T]; or all, [B, N, T]."""
    x = self.encoder.patch_tokens(self.encoder(patches, mask))
    if self.stride == 1 and not visible_too:
      x = mask.take_masked(x)
    head = dense_like(self.encoder, self.size * self.stride**2, "head", name="head")
    x = head(x).astype(jnp.float32)
    if self.stride == 1:
      return x
    # [B, n, S * S * T] -> [B, rows, columns, T] -> [B, N, T]
    rows, columns = (side // self.stride for side in self.encoder.grid)
    x = unpatchify(x, grid=(rows, columns), patch_size=self.stride)
    x = x.reshape(len(x), -1, self.size)
    return x if visible_too else mask.take_masked(x)
