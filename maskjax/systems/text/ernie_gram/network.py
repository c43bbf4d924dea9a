"""The networks of ERNIE-Gram: n-grams predicted as wholes, and token by token."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.gelu import gelu
from maskjax.models.text import TextEncoder, VocabularyHead
from maskjax.models.transformer import blocks_like, dense_like, norm_like
from maskjax.tokens import Text


class IdentityHead(nn.Module):
  """From features to logits of tokens and n-grams, by the tables that both have.

  Attributes:
    encoder: has the table of tokens, and the options of the layers.
  """

  encoder: TextEncoder

  @nn.compact
  def __call__(self, x: Array, ngrams: Array) -> Array:
    """[..., D] and the table of n-grams [G, E] to float32 [..., V + G]."""
    encoder = self.encoder
    width = ngrams.shape[1]
    use_bias = encoder.options.use_bias
    dense = dense_like(encoder, width, use_bias=use_bias, name="dense")
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
  """Reads identities, those of tokens or of n-grams, and predicts them.

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
    init = self.encoder.options.drawn.tables
    self.ngrams = self.param("ngrams", init, (self.num_ngrams, width))
    self.symbols = self.param("symbols", init, (self.longest, width))
    self.generator = blocks_like(self.encoder, self.generator_depth)
    self.generator_norm = norm_like(self.encoder)
    self.generator_head = IdentityHead(encoder=self.encoder)
    self.coarse = IdentityHead(encoder=self.encoder)
    self.fine = VocabularyHead(encoder=self.encoder)
    self.detector = dense_like(self.encoder, 1)

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
      self.propose(text, text.token, ids)
      self.fine(features)
      self.detector(features)
    logits = self.coarse(gather(features, ids), self.ngrams)
    return logits[..., : self.encoder.vocab_size]

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)

  def vectors(self, identities: Array) -> Array:
    """The embeddings of identities: int [...] to [..., E]."""
    size = self.encoder.vocab_size
    of_token = self.encoder.table[jnp.minimum(identities, size - 1)]
    of_ngram = self.ngrams[jnp.maximum(identities - size, 0)]
    return jnp.where((identities < size)[..., None], of_token, of_ngram)

  def propose(self, text: Text, identities: Array, ids: Array) -> Array:
    """The generator's logits of identities at some positions.

    Args:
      text: the positions, [B, N].
      identities: what stands there, int [B, N].
      ids: int [B, M].

    Returns:
      float32 [B, M, V + G].
    """
    x = self.encoder.embed(text, self.vectors(identities))
    x = self.generator(x, **self.encoder.block_inputs(text, windowed=False))[-1]
    x = self.generator_norm(gather(x, ids))
    return self.generator_head(x, self.ngrams)

  def all_logits(
    self, text: Text, identities: Array, symbols: Text, symbol_ids: Array, ids: Array
  ) -> tuple[Array, Array, Array]:
    """Logits of n-grams as wholes, of their tokens, and of replacements.

    For each predicted token there is a mask symbol. It sees its document and itself;
    nothing sees it.

    Args:
      text: the positions, [B, N].
      identities: what stands there, int [B, N].
      symbols: the positions of mask symbols, [B, M].
      symbol_ids: which token of its n-gram each stands for, int [B, M].
      ids: where n-grams are predicted as wholes, int [B, M].

    Returns:
      Logits of identities, float32 [B, M, V + G]; of tokens, float32 [B, M, V]; and of
      whether another identity stands at each position than the original, float32
      [B, N].
    """
    both = self.encode_both(text, identities, symbols, symbol_ids)
    features, of_symbols = jnp.split(both, [text.token.shape[1]], axis=1)
    whole = self.coarse(gather(features, ids), self.ngrams)
    replaced = self.detector(features)[..., 0].astype(jnp.float32)
    return whole, self.fine(of_symbols), replaced

  def encode_both(
    self, text: Text, identities: Array, symbols: Text, symbol_ids: Array
  ) -> Array:
    """Features of all positions and mask symbols, see `all_logits`: [B, N + M, D]."""
    vectors = jnp.concatenate(
      [self.vectors(identities), self.symbols[symbol_ids]], axis=1
    )

    def joined(first: Array, second: Array) -> Array:
      return jnp.concatenate([first, second], axis=1)

    both = Text(
      token=joined(text.token, symbols.token),
      segment=joined(text.segment, symbols.segment),
      position=joined(text.position, symbols.position),
      word=joined(text.word, symbols.word),
    )
    count = vectors.shape[1]
    is_symbol = jnp.arange(count) >= text.token.shape[1]
    unseen = is_symbol & ~jnp.eye(count, dtype=bool)
    bias = jnp.where(unseen, -jnp.inf, 0.0)
    return self.encoder.run_blocks(self.encoder.embed(both, vectors), both, bias)
