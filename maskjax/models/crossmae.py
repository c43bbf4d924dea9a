"""Decoders that only look at the encoder, and never at each other's tokens."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.decoder import TokenDecoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.tokens import sincos


class CrossDecoder(TokenDecoder, kw_only=True):
  """Predicts each patch by itself, from the codes of the visible ones.

  Its blocks have no attention among the predicted patches, so that any number of them
  can be asked for. Each block reads a learned combination of what the encoder's blocks
  gave (https://arxiv.org/abs/2401.14391, section 3).

  Attributes:
    patch_dim: length P of a prediction.
  """

  patch_dim: int

  @nn.compact
  def __call__(
    self, encoded: Sequence[Array], mask: Mask, visible_too: bool = False
  ) -> Array:
    """Predicts the patches of `mask.masked_ids`, or all.

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
    asked = positions[None] if visible_too else positions[mask.masked_ids]
    x = self.mask_tokens() + asked
    x = jnp.broadcast_to(x, (mixed.shape[1], *x.shape[1:]))
    x = self.transform(x, attends="context", context=list(mixed))
    return self.predict(x, self.patch_dim)


class CrossMaskedAutoencoder(EncoderModel):
  """The network of CrossMAE (https://arxiv.org/abs/2401.14391, figure 3).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees what all of its blocks gave.
  """

  decoder: CrossDecoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts patches: [B, N, P] to float32 [B, M, P], see `CrossDecoder`."""
    encoded = self.encoder.every_block(patches, mask, embedded_too=True)
    return self.decoder(encoded, mask, visible_too)
