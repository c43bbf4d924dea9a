"""Masked language models with further blocks that come to trust masked tokens."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.masking.selection import highest_where
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.text.encoder_model import blocks_like, norm_like, whole_documents
from maskjax.models.text.masked_lm import VocabularyHead
from maskjax.tokens import Text

# What it adds to a fraction never comes back to where it was.
_GOLDEN = 0.6180339887498949


class RefinedLM(nn.Module):
  """An encoder, and further blocks in which masked tokens are seen little by little.

  Attributes:
    encoder: of the text.
    unmasked: of each further block, which share of the masked tokens others may look
      at; those of a block are among those of the next one, where the share grows.
  """

  encoder: TextEncoder
  unmasked: tuple[float, ...]

  def setup(self) -> None:
    """Makes the further blocks and the head."""
    self.decoder = blocks_like(self.encoder, len(self.unmasked))
    if not self.encoder.norm_last:
      self.norm = norm_like(self.encoder)
    self.head = VocabularyHead(encoder=self.encoder)

  def __call__(
    self,
    text: Text,
    ids: Array,
    order: Array | None = None,
    unrefined: Array | None = None,
  ) -> Array:
    """Logits at the places `ids` alone.

    Args:
      text: [B, N], with mask tokens where tokens are hidden.
      ids: int [B, M], where that is.
      order: float [B, N]; of masked tokens those with the highest are seen first. When
        None, an order of places that spreads over the row.
      unrefined: bool [B, M], where the encoder's codes are read in place of those after
        the further blocks; nowhere when None.

    Returns:
      float32 [B, M, V].
    """
    codes = self.encoder(text)
    if order is None:
      places = jnp.arange(text.token.shape[1])
      order = jnp.broadcast_to((places * _GOLDEN) % 1.0, text.token.shape)
    where = whole_documents(self.encoder, text)
    unseen = [self.not_seen(text, ids, order, share) for share in self.unmasked]
    where["bias"] = [
      jnp.where(masked[:, None, None], -jnp.inf, where["bias"]) for masked in unseen
    ]
    x = self.decoder(codes, **where)[-1]
    x = gather(x if self.encoder.norm_last else self.norm(x), ids)
    if unrefined is not None:
      x = jnp.where(unrefined[..., None], gather(codes, ids), x)
    return self.head(x)

  def not_seen(self, text: Text, ids: Array, order: Array, share: float) -> Array:
    """Which masked tokens no other looks at in a block of this share: bool [B, N]."""

    def one(ids: Array, padding: Array, order: Array) -> Array:
      # Filling sees nothing but padding, and has to see something.
      masked = jnp.zeros(padding.shape, bool).at[ids].set(True) & ~padding
      count = jnp.round(share * masked.sum()).astype(jnp.int32)
      return masked & ~highest_where(order, masked, count)

    return jax.vmap(one)(ids, text.is_padding, order)

  def encode(self, text: Text) -> Array:
    """Codes of all tokens, without the further blocks: [B, N, D]."""
    return self.encoder(text)
