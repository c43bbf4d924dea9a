"""The network of SpanBERT: masked tokens told by what stands around their span."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import gather
from maskjax.models.dense import Dense
from maskjax.models.gelu import gelu
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.text.masked_lm import VocabularyHead
from maskjax.models.transformer import LayerNorm
from maskjax.tokens import Text


class BoundaryHead(nn.Module):
  """From the codes at both ends of a span, and a place in it, to logits of its token.

  Two dense layers, each with GELU and a normalization, and the encoder's own table
  (https://arxiv.org/abs/1907.10529, section 3.2).

  Attributes:
    encoder: has the table, and says what the layers here are like.
    places: how many tokens a span has at most.
    place_width: channels that stand for a place.
  """

  encoder: TextEncoder
  places: int
  place_width: int = 200

  @nn.compact
  def __call__(self, left: Array, right: Array, place: Array) -> Array:
    """Logits [..., V], float32.

    Args:
      left: [..., D], the code of the token before the span.
      right: [..., D], the code of the token behind it.
      place: int [...], how many tokens of the span stand before the one to tell.
    """
    encoder = self.encoder
    init = nn.initializers.normal(0.02)
    table = self.param("places", init, (self.places, self.place_width))
    x = jnp.concatenate([left, right, table[place].astype(left.dtype)], axis=-1)
    for name, width in (
      ("first", encoder.width),
      ("second", encoder.embed_width or encoder.width),
    ):
      x = gelu(Dense(width, dtype=encoder.dtype, name=f"{name}_dense")(x))
      x = LayerNorm(
        epsilon=encoder.norm_epsilon, dtype=encoder.dtype, name=f"{name}_norm"
      )(x)
    zeros = nn.initializers.zeros_init()
    bias = self.param("bias", zeros, (encoder.vocab_size,), jnp.float32)
    return encoder.token_logits(x) + bias


class SpanLM(nn.Module):
  """Tells the tokens at some places of a text, also by the ends of their span.

  Attributes:
    encoder: of the text.
    places: see `BoundaryHead`.
    place_width: see `BoundaryHead`.
  """

  encoder: TextEncoder
  places: int
  place_width: int = 200

  def setup(self) -> None:
    """Makes the heads."""
    self.head = VocabularyHead(encoder=self.encoder)
    self.boundaries = BoundaryHead(
      encoder=self.encoder, places=self.places, place_width=self.place_width
    )

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits at the places `ids` alone, by their own codes.

    Args:
      text: [B, N], with mask tokens where tokens are hidden.
      ids: int [B, M].

    Returns:
      float32 [B, M, V].
    """
    if self.is_initializing():
      return self.both(text, ids, ids, ids, jnp.zeros_like(ids))[0]
    return self.head(gather(self.encoder(text), ids))

  def both(
    self, text: Text, ids: Array, left: Array, right: Array, place: Array
  ) -> tuple[Array, Array]:
    """Logits at the places `ids`, by their own codes and by the ends of their span.

    Args:
      text: see `__call__`.
      ids: see `__call__`.
      left: int [B, M], where the token before the span of each stands.
      right: int [B, M], where the one behind it stands.
      place: int [B, M], see `BoundaryHead`.

    Returns:
      Two float32 [B, M, V].
    """
    codes = self.encoder(text)
    told = self.boundaries(gather(codes, left), gather(codes, right), place)
    return self.head(gather(codes, ids)), told

  def encode(self, text: Text) -> Array:
    """Codes of all tokens: [B, N, D]."""
    return self.encoder(text)
