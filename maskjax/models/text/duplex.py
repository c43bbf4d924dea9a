"""Networks of RetroMAE and DupMAE: texts told from the codes of their first tokens."""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.attention import Attention
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout
from maskjax.models.text.encoder import TextEncoder, attention_bias
from maskjax.models.text.masked_lm import VocabularyHead
from maskjax.models.transformer import LayerNorm, Mlp
from maskjax.tokens import Text


class EnhancedDecoder(nn.Module):
  """One block, in which each place sees tokens of its own (RetroMAE's).

  What attends is the document's code with the place's position; what is attended to
  are the tokens' vectors and that code (https://arxiv.org/abs/2205.12035). The block
  normalizes the sums of tokens and branches, whatever the encoder does.

  Attributes:
    encoder: says what the block is like; its own parameters are not here.
  """

  encoder: TextEncoder

  @nn.compact
  def __call__(
    self, query: Array, context: Array, bias: Array, places: Array | None = None
  ) -> Array:
    """Tells all places of all others.

    Args:
      query: [B, N, D].
      context: [B, N, D].
      bias: float32 [B, 1, N, N], see `decoder_bias`.
      places: for rotary positions, [B, N, 1].

    Returns:
      [B, N, D].
    """
    encoder = self.encoder
    norm = functools.partial(
      LayerNorm, epsilon=encoder.norm_epsilon, dtype=encoder.dtype
    )
    attention = Attention(
      heads=encoder.heads,
      dropout=encoder.options.attention_dropout,
      dtype=encoder.dtype,
      name="attention",
    )
    turned = None if places is None else (places, places)
    y = attention(query, context, bias=bias, positions=turned)
    x = norm(name="attention_norm")(query + dropout(self, y, encoder.options.dropout))
    ratio = encoder.options.mlp_ratio
    y = Mlp(ratio=ratio, dtype=encoder.dtype, name="mlp")(x)
    return norm(name="mlp_norm")(x + dropout(self, y, encoder.options.dropout))


class DuplexAutoencoder(nn.Module):
  """A masked language model whose codes tell their document in two further ways.

  Attributes:
    encoder: of the text.
    embed_dim: length of the code of a document's first token in its embedding.
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
    """Logits of the tokens at some places, as `MaskedLM`.

    Args:
      text: [B, N], with mask tokens where tokens are hidden.
      ids: int [B, M].

    Returns:
      float32 [B, M, V].
    """
    codes = self.encoder(text)
    if self.is_initializing():
      nothing = jnp.zeros((*text.token.shape, text.token.shape[1]), bool)
      self.decode(codes, text, decoder_bias(text, nothing))
      self.project(codes)
    return self.head(gather(codes, ids))

  def encode(self, text: Text) -> Array:
    """Codes of all tokens: [B, N, D]."""
    return self.encoder(text)

  def tell(self, codes: Array) -> Array:
    """Logits of tokens by codes: [B, N, D] to float32 [B, N, V]."""
    return self.head(codes)

  def decode(self, codes: Array, text: Text, bias: Array) -> Array:
    """What the decoder makes of the codes of first tokens alone: [B, N, D].

    Args:
      codes: of the encoder, [B, N, D].
      text: with nothing masked.
      bias: see `decoder_bias`.
    """
    is_first = (text.position == 0)[..., None]
    first = gather(codes, jnp.arange(text.token.shape[1]) - text.position)
    query = self.encoder.embed(text, first)
    context = jnp.where(is_first, codes, self.encoder.embed(text))
    rotary = self.encoder.positions == "rotary"
    places = text.position[..., None] if rotary else None
    return self.decoder(query, context, bias, places)

  def embed(self, text: Text) -> tuple[Array, Array]:
    """Projected codes of rows' first tokens [B, E], and logits of all [B, N, V]."""
    codes = self.encoder(text)
    return self.project(codes[:, 0]), self.head(codes)


def decoder_bias(text: Text, masked: Array) -> Array:
  """Lets each place see its document's first token and some others, but not itself.

  Args:
    text: [B, N].
    masked: bool [B, N, N], which tokens each place must not see.

  Returns:
    float32 [B, 1, N, N], 0 or -inf. First tokens, and padding, see each other, so that
    no place is blind.
  """
  is_first = text.position == 0
  itself = jnp.eye(text.token.shape[1], dtype=bool)
  seen = is_first[:, None] | ~(masked | itself)
  return attention_bias(text) + jnp.where(seen, 0.0, -jnp.inf)[:, None]
