"""Masked language models whose mask tokens enter late, after most blocks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import Mask, gather
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.text.masked_lm import VocabularyHead
from maskjax.models.transformer import blocks_like, norm_like
from maskjax.tokens import Text


class LateMaskLM(nn.Module):
  """An encoder of visible tokens, and further blocks that mask tokens enter as well.

  Attributes:
    encoder: of the visible tokens.
    depth: number of further blocks.
    begins_anew: add further positions to all that enters the further blocks, and
      normalize it, as MAE-LM does; else late tokens are embedded as the encoder's are.
    dropout: of the further blocks, of their attention as well; the encoder's when None.
  """

  encoder: TextEncoder
  depth: int
  begins_anew: bool = False
  dropout: float | None = None

  def setup(self) -> None:
    """Makes the further blocks and the head."""
    encoder = self.encoder
    own: dict[str, Any] = {}
    if self.dropout is not None:
      own = dict.fromkeys(
        ("dropout", "attention_dropout", "attention_output_dropout"), self.dropout
      )
    self.decoder = blocks_like(encoder, self.depth, **own)
    if self.begins_anew:
      init = encoder.options.drawn.tables
      self.positions = self.param("positions", init, (encoder.length, encoder.width))
      self.enter_norm = norm_like(encoder)
    if not encoder.options.norm_last:
      self.norm = norm_like(encoder)
    self.head = VocabularyHead(encoder=encoder)

  def __call__(self, text: Text, ids: Array, late: Mask | None = None) -> Array:
    """Logits at the positions `ids` alone.

    Args:
      text: [B, N], with mask tokens where tokens are masked.
      ids: int [B, M], ascending.
      late: masks what the encoder does not see; `ids` when None.

    Returns:
      float32 [B, M, V].
    """
    num_wanted = None
    if late is None:
      num_wanted = ids.shape[1]
      masked = jax.vmap(lambda row, at: row.at[at].set(True))(
        jnp.zeros(text.token.shape, bool), ids
      )
      late = Mask.exactly(masked, num_masked=num_wanted)
    # Late tokens stand last, so that the last block need not compute the others.
    order = jnp.concatenate([late.visible_ids, late.masked_ids], axis=1)
    features = self.encoder(text.take(late.visible_ids))
    x = jnp.concatenate([features, self.enter(text.take(late.masked_ids))], axis=1)
    text = text.take(order)
    if self.begins_anew:
      x = self.enter_norm(x + self.positions[text.position].astype(x.dtype))
    # Blocks that begin anew have absolute positions alone.
    inputs = self.encoder.block_inputs(
      text, windowed=False, biased=not self.begins_anew
    )
    # Distances are of all tokens to all others, see `Block`.
    x = self.decoder(x, None if "relative" in inputs else num_wanted, **inputs)[-1]
    x = x if num_wanted is None else x[:, -num_wanted:]
    x = x if self.encoder.options.norm_last else self.norm(x)
    if num_wanted is None:
      x = gather(x, jnp.take_along_axis(late.restore_ids, ids, axis=1))
    return self.head(x)

  def enter(self, late: Text) -> Array:
    """Embeddings of the tokens that enter late: [B, L] to [B, L, D]."""
    encoder = self.encoder
    if not self.begins_anew:
      return encoder.embed(late)
    x = encoder.table[late.token].astype(encoder.dtype)
    return x if x.shape[-1] == encoder.width else encoder.embed_up(x)

  def encode(self, text: Text) -> Array:
    """Features of all tokens, without the further blocks: [B, N, D]."""
    return self.encoder(text)
