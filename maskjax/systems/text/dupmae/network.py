"""The networks of RetroMAE and DupMAE: documents predicted from their first tokens."""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.attention import Attention
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout
from maskjax.models.text import TextEncoder, VocabularyHead, attention_bias
from maskjax.models.transformer import LayerNorm, Mlp
from maskjax.tokens import Text


class EnhancedDecoder(nn.Module):
  """One block, in which each position sees tokens of its own (RetroMAE's).

  The queries are the features of the document's first token with each position's
  embedding; the keys are the tokens' embeddings and those features
  (https://arxiv.org/abs/2205.12035). The block normalizes the sums of tokens and
  branches, whatever the encoder does.

  Attributes:
    encoder: has the options of the block; its own parameters are not here.
  """

  encoder: TextEncoder

  @nn.compact
  def __call__(
    self, query: Array, context: Array, bias: Array, positions: Array | None = None
  ) -> Array:
    """Decodes all positions.

    Args:
      query: [B, N, D].
      context: [B, N, D].
      bias: float32 [B, 1, N, N], see `decoder_bias`.
      positions: for rotary positions, [B, N, 1].

    Returns:
      [B, N, D].
    """
    encoder, options = self.encoder, self.encoder.options
    drawn = options.drawn
    norm = functools.partial(
      LayerNorm, epsilon=encoder.norm_epsilon, dtype=encoder.dtype
    )
    attention = Attention(
      heads=encoder.heads,
      dropout=options.attention_dropout,
      drawn=drawn.attention(to_others=True),
      dtype=encoder.dtype,
      name="attention",
    )
    pair = None if positions is None else (positions, positions)
    y = attention(query, context, bias=bias, positions=pair)
    x = norm(name="attention_norm")(query + dropout(self, y, options.dropout))
    y = Mlp(
      ratio=options.mlp_ratio, drawn=drawn.inner, dtype=encoder.dtype, name="mlp"
    )(x)
    return norm(name="mlp_norm")(x + dropout(self, y, options.dropout))


class DuplexAutoencoder(nn.Module):
  """A masked language model whose features predict their document in two further ways.

  Attributes:
    encoder: of the text.
    embed_dim: length of the part of an embedding that a document's first token makes.
  """

  encoder: TextEncoder
  embed_dim: int

  def setup(self) -> None:
    """Makes the head of all three tasks, the decoder and the projection."""
    self.head = VocabularyHead(encoder=self.encoder)
    self.decoder = EnhancedDecoder(encoder=self.encoder)
    # Lengths and angles change least in finetuning's first steps.
    init = nn.initializers.orthogonal()
    self.project = Dense(
      self.embed_dim, use_bias=False, kernel_init=init, dtype=self.encoder.dtype
    )

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits of the tokens at some positions, as `MaskedLM`.

    Args:
      text: [B, N], with mask tokens where tokens are masked.
      ids: int [B, M].

    Returns:
      float32 [B, M, V].
    """
    features = self.encoder(text)
    if self.is_initializing():
      nothing = jnp.zeros((*text.token.shape, text.token.shape[1]), bool)
      self.decode(features, text, decoder_bias(text, nothing))
      self.project(features)
    return self.head(gather(features, ids))

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)

  def token_logits(self, features: Array) -> Array:
    """Logits of tokens, of the encoder's or the decoder's [B, N, D]: [B, N, V]."""
    return self.head(features)

  def decode(self, features: Array, text: Text, bias: Array) -> Array:
    """What the decoder makes of the features of first tokens alone: [B, N, D].

    Args:
      features: of the encoder, [B, N, D].
      text: with nothing masked.
      bias: see `decoder_bias`.
    """
    is_first = (text.position == 0)[..., None]
    first = gather(features, jnp.arange(text.token.shape[1]) - text.position)
    query = self.encoder.embed(text, first)
    context = jnp.where(is_first, features, self.encoder.embed(text))
    rotary = self.encoder.positions == "rotary"
    positions = text.position[..., None] if rotary else None
    return self.decoder(query, context, bias, positions)

  def embed_parts(self, text: Text) -> tuple[Array, Array]:
    """Projected features of rows' first tokens [B, E], and logits of all [B, N, V]."""
    features = self.encoder(text)
    return self.project(features[:, 0]), self.head(features)


def decoder_bias(text: Text, masked: Array) -> Array:
  """Lets each position see its document's first token and some others, not itself.

  Args:
    text: [B, N].
    masked: bool [B, N, N], which tokens each position must not see.

  Returns:
    float32 [B, 1, N, N], 0 or -inf. First tokens, and padding, see each other, so that
    every position sees something.
  """
  is_first = text.position == 0
  itself = jnp.eye(text.token.shape[1], dtype=bool)
  seen = is_first[:, None] | ~(masked | itself)
  return attention_bias(text) + jnp.where(seen, 0.0, -jnp.inf)[:, None]
