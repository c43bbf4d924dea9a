"""An encoder with decoders at several depths, for regions of several sizes."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.decoder import Decoder
from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.gelu import gelu
from maskjax.models.transformer import norm_like
from maskjax.tokens import patchify, unpatchify


class RegionDecoder(nn.Module):
  """Predicts regions that are smaller or larger than the decoder's patches.

  For smaller ones each token is cut into 2x2, and those again, by deconvolutions whose
  stride is the size of their kernel: dense layers, but for the order of what comes out.
  For larger ones the predictions of neighboring patches are averaged.

  Attributes:
    decoder: predicts a region of the size of a patch, [B, N, size], where nothing is
      cut; else its head is the first deconvolution, of length 4 * W.
    size: length T of the prediction of a region.
    cuts: how often a patch is cut into 2x2 regions; each halves W.
    pool: rows and columns of patches that are one region.
  """

  decoder: Decoder
  size: int
  cuts: int = 0
  pool: int = 1

  @nn.compact
  def __call__(self, encoded: Array, mask: Mask) -> Array:
    """Predicts the regions of masked patches; larger regions all.

    Args:
      encoded: see `Decoder`.
      mask: the mask under which it was encoded.

    Returns:
      float32 [B, M, S * S * T], the SxS regions of a patch by row; larger ones
      [B, N / pool / pool, T].
    """
    x = self.decoder(encoded, mask, self.pool > 1)
    batch, length, width = x.shape
    if self.pool > 1:
      # [B, N, T] -> [B, N / pool / pool, pool * pool * T]
      x = patchify(x.reshape(batch, *self.decoder.grid, width), self.pool)
      return x.reshape(*x.shape[:2], -1, self.size).mean(axis=2)
    for i in range(self.cuts):
      # [B * M, S * S, 4 * W] -> [B * M, 2 * S, 2 * S, W]
      x = x.reshape(batch * length, 4**i, width)
      x = unpatchify(x, grid=(2**i, 2**i), patch_size=2)
      width //= 2
      if i + 1 < self.cuts:
        x = norm_like(self.decoder, name=f"norm_{i + 1}")(x)
        cut = Dense(width, dtype=self.decoder.dtype, name=f"cut_{i + 1}")
        x = cut(gelu(x))
    if self.cuts:
      x = Dense(self.size, dtype=self.decoder.dtype, name="head")(x)
    return x.reshape(batch, length, -1).astype(jnp.float32)


class MultiscaleAutoencoder(EncoderModel):
  """The network of LocalMIM (https://arxiv.org/abs/2303.05251, section 3.2).

  Attributes:
    encoder: sees the visible patches only.
    layers: its blocks, counted from 1, whose codes are decoded; the last one is last.
    decoders: one for each of `layers`.
  """

  layers: tuple[int, ...]
  decoders: Sequence[RegionDecoder]

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> list[Array]:
    """Predicts at each depth: [B, N, P] to what each of `decoders` says."""
    codes = self.encoder.every_block(patches, mask)
    predictions = []
    for layer, decoder in zip(self.layers, self.decoders, strict=True):
      x = codes[layer - 1]
      if layer < self.encoder.depth:  # the last are normalized already
        x = norm_like(self.encoder, name=f"norm_{layer}")(x)
      predictions.append(decoder(x, mask))
    return predictions
