"""Decoders that only look at the encoder, and never at each other's tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.models.vit import VisionEncoder
from maskjax.tokens import sincos


class CrossDecoder(nn.Module):
  """Predicts each patch by itself, from the codes of the visible ones.

  Its blocks have no attention among the predicted patches, so that any number of them
  can be asked for. Each block reads a learnt combination of what the encoder's blocks
  gave (https://arxiv.org/abs/2401.14391, section 3).

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    patch_dim: length P of a prediction.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    norm_epsilon: added to the variance in layer normalisation.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  grid: tuple[int, int]
  patch_dim: int
  width: int
  depth: int
  heads: int
  norm_epsilon: float = 1e-6
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, encoded: Sequence[Array], mask: Mask, visible_too: bool = False
  ) -> Array:
    """Predicts the patches of `mask.hidden_ids`, or all.

    Args:
      encoded: K arrays [B, 1 + V, E]: the tokens before the encoder's blocks, and
        after each.
      mask: the mask under which they were encoded.
      visible_too: predict all patches.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`, in order of place.
    """
    init = nn.initializers.normal(len(encoded) ** -0.5)
    weights = self.param("weights", init, (self.depth, len(encoded)))
    # [K, B, 1 + V, E] -> [depth, B, 1 + V, E]
    mixed = jnp.einsum("dk,kbve->dbve", weights.astype(self.dtype), jnp.stack(encoded))
    positions = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width))
    asked = positions[None] if visible_too else positions[mask.hidden_ids]
    x = token.astype(self.dtype) + asked
    x = jnp.broadcast_to(x, (mixed.shape[1], *x.shape[1:]))
    x = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      attends="context",
      dtype=self.dtype,
      name="transformer",
      **self.options,
    )(x, context=list(mixed))[-1]
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
    head = Dense(self.patch_dim, dtype=self.dtype, name="head")
    return head(x).astype(jnp.float32)


class CrossMaskedAutoencoder(nn.Module):
  """The network of CrossMAE (https://arxiv.org/abs/2401.14391, figure 3).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees what all of its blocks gave.
  """

  encoder: VisionEncoder
  decoder: CrossDecoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts patches: [B, N, P] to float32 [B, M, P], see `CrossDecoder`."""
    encoded = self.encoder.every_block(patches, mask, embedded_too=True)
    return self.decoder(encoded, mask, visible_too)

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return self.encoder(patches)
