"""The network of replaced token detection."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.gelu import gelu
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.transformer import LayerNorm, dense_like
from maskjax.tokens import Text


class TokenDetector(nn.Module):
  """Predicts of each token whether it was substituted.

  A dense layer, GELU and normalization, as before a token table, and one output.

  Attributes:
    encoder: of the text.
    normalizes: whether there is that normalization; ELECTRA has none
      (https://arxiv.org/abs/2003.10555).
  """

  encoder: TextEncoder
  normalizes: bool = True

  def setup(self) -> None:
    """Makes the head."""
    encoder = self.encoder
    self.dense = dense_like(encoder, encoder.width)
    if self.normalizes:
      self.norm = LayerNorm(epsilon=encoder.norm_epsilon, dtype=encoder.dtype)
    self.head = dense_like(encoder, 1)

  def __call__(self, text: Text, ids: Array | None = None) -> Array:
    """Logits of having been substituted.

    Args:
      text: [B, N].
      ids: positions to predict, int [B, M]; all when None.

    Returns:
      float32 [B, N], or [B, M].
    """
    x = self.encoder(text)
    x = x if ids is None else gather(x, ids)
    x = gelu(self.dense(x))
    x = self.head(self.norm(x) if self.normalizes else x)
    return x[..., 0].astype(jnp.float32)

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)
