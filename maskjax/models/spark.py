"""A sparse hierarchical encoder and its decoder, as in SparK."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.convnext import INIT, ConvNext
from maskjax.models.convolution import (
  BatchNorm,
  Upsample,
  conv,
  upsample_mask,
  zero_masked,
)
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import LayerNorm
from maskjax.tokens import patchify


class LightDecoder(nn.Module):
  """Doubles features until they are as large as the image, like a UNet.

  Each doubling is a transposed convolution and two of 3x3, and halves the channels
  (https://arxiv.org/abs/2301.03580, section 3.2).

  Attributes:
    width: channels of the smallest features.
    doublings: how often the sides are doubled.
    channels: values a pixel.
    dtype: type of the computation.
  """

  width: int
  doublings: int
  channels: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, features: Sequence[Array]) -> Array:
    """Draws images.

    Args:
      features: dense ones, the smallest first: [B, H, W, width], then
        [B, 2H, 2W, width / 2] and so on, each added to what becomes of those before.

    Returns:
      float32 [B, 2**doublings H, 2**doublings W, channels].
    """
    x = features[0]
    for i in range(self.doublings):
      width = x.shape[-1]
      x = Upsample(width, dtype=self.dtype, name=f"double_{i}")(x)
      x = conv(width, 3, init=INIT, dtype=self.dtype, name=f"conv_{i}_0")(x)
      x = BatchNorm(dtype=self.dtype, name=f"norm_{i}_0")(x)
      x = nn.relu6(x)
      x = conv(width // 2, 3, init=INIT, dtype=self.dtype, name=f"conv_{i}_1")(x)
      x = BatchNorm(dtype=self.dtype, name=f"norm_{i}_1")(x)
      if i + 1 < len(features):
        x = x + features[i + 1]
    head = conv(
      self.channels, 1, use_bias=True, init=INIT, dtype=self.dtype, name="head"
    )
    return head(x).astype(jnp.float32)


class SparseAutoencoder(EncoderModel):
  """The network of SparK (https://arxiv.org/abs/2301.03580, section 3).

  Attributes:
    encoder: sees visible patches alone, on a ragged plane.
    decoder: sees its features at all scales, with embeddings where patches are hidden.
  """

  decoder: LightDecoder

  @nn.compact
  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, P]; or all, [B, N, P]."""
    stages = self.encoder.stages(patches, mask.masked)
    # [B, N] -> [B, rows, columns]
    masked = mask.masked.reshape(-1, *self.encoder.grid)
    dense = [self.densified(x, masked, i) for i, x in enumerate(reversed(stages))]
    predicted = patchify(self.decoder(dense), self.encoder.patch_size)
    return predicted if visible_too else mask.take_masked(predicted)

  def densified(self, x: Array, masked: Array, i: int) -> Array:
    """Sets a learned embedding where masked, and projects to the decoder's width.

    Args:
      x: features of a scale, [B, H, W, C].
      masked: bool [B, rows, columns].
      i: the scale, 0 for the smallest.

    Returns:
      [B, H, W, width].
    """
    dtype, width = self.encoder.dtype, self.decoder.width // 2**i
    if isinstance(self.encoder.network, ConvNext):
      x = zero_masked(LayerNorm(epsilon=1e-6, dtype=dtype, name=f"norm_{i}")(x), masked)
    else:
      x = BatchNorm(dtype=dtype, name=f"norm_{i}")(x, masked)
    embedding = self.param(f"embedding_{i}", INIT, x.shape[-1:]).astype(dtype)
    x = jnp.where(upsample_mask(masked, *x.shape[1:3]), embedding, x)
    if i == 0 and x.shape[-1] == width:
      return x
    size = 1 if i == 0 else 3
    return conv(width, size, use_bias=True, dtype=dtype, name=f"project_{i}")(x)
