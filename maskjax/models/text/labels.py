"""Networks that label texts and tokens, for finetuning."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.models.dropout import dropout
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.transformer import dense_like
from maskjax.tokens import Text

_INIT = nn.initializers.normal(0.02)


class TextClassifier(nn.Module):
  """Classes of a text, from the features of the token before it.

  A dense layer and a hyperbolic tangent stand before the last layer, as in BERT.

  Attributes:
    encoder: of the text.
    num_classes: number of classes K.
  """

  encoder: TextEncoder
  num_classes: int

  @nn.compact
  def __call__(self, text: Text) -> Array:
    """Rows of one text each, [B, N], to float32 logits [B, K]."""
    encoder = self.encoder
    first = encoder(text)[:, 0]
    pooled = jnp.tanh(dense_like(encoder, encoder.width, name="pool")(first))
    pooled = dropout(self, pooled, encoder.options.dropout).astype(jnp.float32)
    return nn.Dense(self.num_classes, kernel_init=_INIT, name="classes")(pooled)

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)


class TokenClassifier(nn.Module):
  """Classes of each token.

  Attributes:
    encoder: of the text.
    num_classes: number of classes K; to find spans, 2: where they begin and end.
    drops: drop features at random before the last layer, as BERT does but to find
      spans.
  """

  encoder: TextEncoder
  num_classes: int
  drops: bool = True

  @nn.compact
  def __call__(self, text: Text) -> Array:
    """Rows [B, N] to float32 logits [B, N, K]."""
    rate = self.encoder.options.dropout if self.drops else 0.0
    features = dropout(self, self.encoder(text), rate).astype(jnp.float32)
    return nn.Dense(self.num_classes, kernel_init=_INIT, name="classes")(features)

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)
