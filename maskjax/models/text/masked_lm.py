"""Masked language models: an encoder, and a head that shares its table of tokens."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.gelu import gelu
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.transformer import dense_like, norm_like
from maskjax.tokens import Text


class VocabularyHead(nn.Module):
  """From features to logits of tokens, by the encoder's own table.

  A dense layer, GELU and normalization stand before the table, as in BERT.

  Attributes:
    encoder: has the table, and the options of the layers.
  """

  encoder: TextEncoder

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] to float32 [..., V]."""
    encoder = self.encoder
    width, use_bias = encoder.embed_width or encoder.width, encoder.options.use_bias
    dense = dense_like(encoder, width, use_bias=use_bias, name="dense")
    norm = norm_like(encoder, name="norm")
    logits = encoder.token_logits(norm(gelu(dense(x))))
    init = nn.initializers.zeros_init()
    return logits + self.param("bias", init, (encoder.vocab_size,), jnp.float32)


class MaskedLM(nn.Module):
  """Predicts the tokens at some positions of a text.

  Attributes:
    encoder: of the text.
  """

  encoder: TextEncoder

  def setup(self) -> None:
    """Makes the head."""
    self.head = VocabularyHead(encoder=self.encoder)

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits at the positions `ids` alone.

    Args:
      text: [B, N], with mask tokens where tokens are masked.
      ids: int [B, M].

    Returns:
      float32 [B, M, V].
    """
    return self.head(gather(self.encoder(text), ids))

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)
