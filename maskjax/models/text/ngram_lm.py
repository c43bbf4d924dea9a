"""The networks of ERNIE-Gram: n-grams told whole, and token by token."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.dense import Dense
from maskjax.models.gelu import gelu
from maskjax.models.text.encoder import TextEncoder
from maskjax.models.text.masked_lm import VocabularyHead
from maskjax.models.transformer import blocks_like, norm_like
from maskjax.tokens import Text

_NORMAL = nn.initializers.normal(0.02)


class IdentityHead(nn.Module):
  """From codes to logits of tokens and n-grams, by the tables that both have.

  Attributes:
    encoder: has the table of tokens, and says what the layers here are like.
  """

  encoder: TextEncoder

  @nn.compact
  def __call__(self, x: Array, ngrams: Array) -> Array:
    """[..., D] and the table of n-grams [G, E] to float32 [..., V + G]."""
    encoder = self.encoder
    width = ngrams.shape[1]
    dense = Dense(
      width, use_bias=encoder.options.use_bias, dtype=encoder.dtype, name="dense"
    )
    x = norm_like(encoder, name="norm")(gelu(dense(x)))
    of_ngrams = jnp.einsum(
      "...e,ge->...g",
      x.astype(encoder.dtype),
      ngrams.astype(encoder.dtype),
      preferred_element_type=jnp.float32,
    )
    size = encoder.vocab_size + len(ngrams)
    bias = self.param("bias", nn.initializers.zeros_init(), (size,), jnp.float32)
    return jnp.concatenate([encoder.token_logits(x), of_ngrams], axis=-1) + bias


class NgramLM(nn.Module):
  """Reads identities, those of tokens or of n-grams, and tells them.

  An identity is a number: of a token below V, of an n-gram from V to V + G - 1.

  Attributes:
    encoder: of the text.
    num_ngrams: G.
    longest: tokens of an n-gram at most, each of which has a mask symbol of its own.
    generator_depth: blocks of the generator, which reads the same vectors.
  """

  encoder: TextEncoder
  num_ngrams: int
  longest: int
  generator_depth: int

  def setup(self) -> None:
    """Makes the tables and the heads."""
    width = self.encoder.embed_width or self.encoder.width
    self.ngrams = self.param("ngrams", _NORMAL, (self.num_ngrams, width))
    self.symbols = self.param("symbols", _NORMAL, (self.longest, width))
    self.generator = blocks_like(self.encoder, self.generator_depth)
    self.generator_norm = norm_like(self.encoder)
    self.generator_head = IdentityHead(encoder=self.encoder)
    self.coarse = IdentityHead(encoder=self.encoder)
    self.fine = VocabularyHead(encoder=self.encoder)
    self.detector = Dense(1, dtype=self.encoder.dtype)

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
      self.propose(text, text.token, ids)
      self.fine(codes)
      self.detector(codes)
    logits = self.coarse(gather(codes, ids), self.ngrams)
    return logits[..., : self.encoder.vocab_size]

  def encode(self, text: Text) -> Array:
    """Codes of all tokens: [B, N, D]."""
    return self.encoder(text)

  def vectors(self, identities: Array) -> Array:
    """What stands for identities: int [...] to [..., E]."""
    size = self.encoder.vocab_size
    of_token = self.encoder.table[jnp.minimum(identities, size - 1)]
    of_ngram = self.ngrams[jnp.maximum(identities - size, 0)]
    return jnp.where((identities < size)[..., None], of_token, of_ngram)

  def propose(self, text: Text, identities: Array, ids: Array) -> Array:
    """The generator's logits of identities at some places.

    Args:
      text: the places, [B, N].
      identities: what stands there, int [B, N].
      ids: int [B, M].

    Returns:
      float32 [B, M, V + G].
    """
    x = self.encoder.embed(text, self.vectors(identities))
    x = self.generator(x, **self.encoder.block_inputs(text, windowed=False))[-1]
    x = self.generator_norm(gather(x, ids))
    return self.generator_head(x, self.ngrams)

  def tell(
    self, text: Text, identities: Array, asked: Text, symbol: Array, ids: Array
  ) -> tuple[Array, Array, Array]:
    """What is told of n-grams whole, of their tokens, and of all places.

    For each token asked for there is a mask symbol. It sees its document and itself;
    nothing sees it.

    Args:
      text: the places, [B, N].
      identities: what stands there, int [B, N].
      asked: the places of mask symbols, [B, M].
      symbol: which token of its n-gram each stands for, int [B, M].
      ids: the places to tell whole, int [B, M].

    Returns:
      Logits of identities, float32 [B, M, V + G]; of tokens, float32 [B, M, V]; and of
      whether each place has another identity than it should, float32 [B, N].
    """
    codes = self.read(text, identities, asked, symbol)
    codes, symbols = jnp.split(codes, [text.token.shape[1]], axis=1)
    whole = self.coarse(gather(codes, ids), self.ngrams)
    return whole, self.fine(symbols), self.detector(codes)[..., 0].astype(jnp.float32)

  def read(self, text: Text, identities: Array, asked: Text, symbol: Array) -> Array:
    """Codes of all places and of all mask symbols, see `tell`: [B, N + M, D]."""
    vectors = jnp.concatenate([self.vectors(identities), self.symbols[symbol]], axis=1)

    def joined(first: Array, second: Array) -> Array:
      return jnp.concatenate([first, second], axis=1)

    both = Text(
      token=joined(text.token, asked.token),
      segment=joined(text.segment, asked.segment),
      position=joined(text.position, asked.position),
      word=joined(text.word, asked.word),
    )
    count = vectors.shape[1]
    is_symbol = jnp.arange(count) >= text.token.shape[1]
    unseen = is_symbol & ~jnp.eye(count, dtype=bool)
    bias = jnp.where(unseen, -jnp.inf, 0.0)
    return self.encoder.run_blocks(self.encoder.embed(both, vectors), both, bias)
