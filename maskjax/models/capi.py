"""Clusters of codes, and predictions of them."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.decoder import TokenDecoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.prototypes import CosineHead
from maskjax.models.rotary import pad_first
from maskjax.normalization import unit
from maskjax.tokens import grid_positions


class Clusters(nn.Module):
  """A linear layer that says how near codes are to clusters.

  Attributes:
    num_clusters: number of clusters K.
  """

  num_clusters: int

  @nn.compact
  def __call__(self, codes: Array) -> Array:
    """[B, N, D] to float32 logits [B, N, K]."""
    init = nn.initializers.normal(1.0)
    return nn.Dense(self.num_clusters, kernel_init=init, name="head")(unit(codes))


class Predictor(TokenDecoder):
  """Predicts each masked place by itself, by attention to the visible codes alone."""

  @nn.compact
  def __call__(self, codes: Array, mask: Mask) -> Array:
    """Predicts masked places: [B, R + V, E], registers first, to [B, M, D]."""
    at = jnp.asarray(grid_positions(self.grid))
    here, there = at[mask.visible_ids], at[mask.masked_ids]
    registers = codes.shape[1] - here.shape[1]
    x = jnp.broadcast_to(self.mask_tokens(), (*there.shape[:2], self.width))
    return self.transform(
      x,
      attends="context",
      context=codes,
      positions=there,
      context_positions=pad_first(here, registers),
    )


class ClusterPredictor(EncoderModel):
  """The network of CAPI (https://arxiv.org/abs/2502.08769, section 3).

  Attributes:
    encoder: sees the visible patches only; has rotary positions, and registers in place
      of a class token.
    predictor: sees their codes.
    head: turns predictions into logits of clusters.
  """

  predictor: Predictor
  head: CosineHead

  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Predicts masked patches' clusters: [B, N, P] to float32 logits [B, M, K]."""
    return self.head(self.predictor(self.encoder(patches, mask), mask))
