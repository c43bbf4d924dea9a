"""The network of BEiT v2: codes of masked patches, told twice."""

from typing import cast

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.transformer import blocks_like, norm_like
from maskjax.models.vit import VisionEncoder


class CodePredictor(nn.Module):
  """An encoder with mask tokens inside, and patch aggregation.

  Further blocks see the class token of the last block, but the patch tokens of an
  earlier one, so that they can tell the codes only by what the class token knows of
  the image (https://arxiv.org/abs/2208.06366, section 2.3).

  Attributes:
    encoder: with `masked_patches="token"`, `positions="relative"`, `final_norm=False`.
    num_codes: length K of a prediction.
    early_layer: how many of its blocks patches go through before aggregation.
    head_depth: blocks of the aggregation; 0 for none, as in BEiT.
  """

  encoder: VisionEncoder
  num_codes: int
  early_layer: int
  head_depth: int

  def setup(self) -> None:
    """Makes what the two predictions share, and the blocks of the second."""
    encoder = self.encoder
    self.norm = norm_like(encoder)
    self.head = Dense(self.num_codes, dtype=encoder.dtype)
    self.aggregator = blocks_like(encoder, self.head_depth)

  def __call__(self, patches: Array, mask: Mask) -> list[Array]:
    """Logits of masked patches [B, N, P], and those by aggregation: [B, M, K] each."""
    outputs = self.encoder.every_block(patches, mask)
    logits = [self.predict(outputs[-1], mask)]
    if self.head_depth:
      early = self.encoder.patch_tokens(outputs[self.early_layer - 1])
      tokens = jnp.concatenate([outputs[-1][:, :1], early], axis=1)
      tokens = self.aggregator(tokens, bias=self.encoder.relative())[-1]
      logits.append(self.predict(tokens, mask))
    return logits

  def predict(self, tokens: Array, mask: Mask) -> Array:
    """Logits of masked patches: [B, 1 + N, D] to float32 [B, M, K]."""
    tokens = self.norm(mask.take_masked(self.encoder.patch_tokens(tokens)))
    return cast(Array, self.head(tokens)).astype(jnp.float32)

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return cast(Array, self.norm(self.encoder(patches)))
