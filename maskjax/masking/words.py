"""Mask samplers of text: `sample(key, text, count) -> bool [N]`, one example each.

`text` is a `maskjax.tokens.Text` of one row. `count`, an int32 scalar, is the number of
tokens to mask: an array, because rows differ in how much of them is padding. No sampler
masks more, and none masks padding or the special tokens around a document.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.masking.selection import highest_units, highest_where
from maskjax.masking.units import number_units, number_words, scores_of
from maskjax.tokens.text import Text

__all__ = [
  "by_class",
  "by_rate",
  "by_similarity",
  "ngrams",
  "spans",
  "terms_and_words",
  "tokens",
  "whole_words",
]

TextSampler = Callable[[Array, Text, Array], Array]


def tokens(key: Array, text: Text, count: Array) -> Array:
  """Masks tokens uniformly at random, without replacement, as BERT does.

  https://arxiv.org/abs/1810.04805, section 3.1.

  Args:
    key: the example's key.
    text: one row.
    count: how many tokens to mask.

  Returns:
    bool [N].

  Example:
    >>> index = jnp.arange(6)
    >>> text = Text(token=index, segment=index * 0 + 1, position=index, word=index // 2)
    >>> int(tokens(jax.random.key(0), text, 3).sum())
    3
  """
  noise = jax.random.uniform(key, text.word.shape)
  return highest_where(noise, text.is_word, count)


def whole_words(key: Array, text: Text, count: Array) -> Array:
  """Masks whole words uniformly at random, without replacement.

  As the later BERT models do (https://github.com/google-research/bert, "Whole Word
  Masking"): a word with more tokens than are left to mask is skipped.

  Args:
    key: the example's key.
    text: one row.
    count: how many tokens to mask; fewer are masked where no remaining word fits.

  Returns:
    bool [N].

  Example:
    >>> index = jnp.arange(6)
    >>> text = Text(token=index, segment=index * 0 + 1, position=index, word=index // 2)
    >>> whole_words(jax.random.key(0), text, 3).tolist()
    [False, False, True, True, False, False]
  """
  units = number_words(text)
  return highest_units(jax.random.uniform(key, units.shape), units, count)


def spans(
  key: Array,
  text: Text,
  count: Array,
  *,
  p: float = 0.2,
  longest: int = 10,
  of: str = "words",
) -> Array:
  """Masks spans of whole words, their lengths from a geometric distribution.

  As SpanBERT does (https://arxiv.org/abs/1907.10529, section 3.1): a span begins at the
  word of a token drawn uniformly from the visible ones, and does not reach beyond its
  document; the last span is cut off where `count` is reached.

  Args:
    key: the example's key.
    text: one row.
    count: how many tokens to mask.
    p: parameter of the distribution.
    longest: greatest length; the distribution is truncated there (mean 3.8 by default).
    of: unit of the length, `words` or `tokens`, see `maskjax.masking.units`.

  Returns:
    bool [N].

  Raises:
    UserError: `of` is neither `words` nor `tokens`.

  Example:
    >>> index = jnp.arange(6)
    >>> text = Text(token=index, segment=index * 0 + 1, position=index, word=index // 2)
    >>> spans(jax.random.key(0), text, 4, of="tokens").tolist()
    [False, True, True, True, True, False]
  """
  units = number_units(text, of)
  lengths = jnp.arange(1, longest + 1)
  logits = jnp.log1p(-p) * lengths

  def more(state: tuple[Array, Array]) -> tuple[Array, Array]:
    masked, key = state
    key, of_length, of_start = jax.random.split(key, 3)
    length = lengths[jax.random.categorical(of_length, logits)]
    free = text.is_word & ~masked
    start = jax.random.categorical(of_start, jnp.where(free, 0.0, -jnp.inf))
    span = (units >= units[start]) & (units < units[start] + length)
    span &= (text.segment == text.segment[start]) & free
    left = count - masked.sum()
    return masked | (span & (jnp.cumsum(span) <= left)), key

  # Each span masks at least the token that was drawn.
  max_masked = jnp.minimum(count, text.is_word.sum())
  nothing = jnp.zeros(units.shape, bool)
  masked, _ = jax.lax.while_loop(
    lambda state: state[0].sum() < max_masked, more, (nothing, key)
  )
  return masked


def ngrams(key: Array, text: Text, count: Array) -> Array:
  """Masks n-grams and single tokens uniformly at random, without replacement.

  Args:
    key: the example's key.
    text: one row, its `score` that of `maskjax.data.statistics.ngrams`.
    count: how many tokens to mask; fewer are masked where no remaining n-gram fits.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.

  Example:
    >>> index = jnp.arange(6)
    >>> text = Text(token=index, segment=index * 0 + 1, position=index, word=index // 2)
    >>> import dataclasses
    >>> score = jnp.array([1.0, -1.0, -1.0, 0.0, 2.0, -1.0])  # two n-grams
    >>> text = dataclasses.replace(text, score=score)
    >>> ngrams(jax.random.key(0), text, 4).tolist()
    [True, True, True, True, False, False]
  """
  begins = text.is_word & (scores_of(text) >= 0)
  units = jnp.where(text.is_word, jnp.cumsum(begins) - 1, -1)
  return highest_units(jax.random.uniform(key, units.shape), units, count)


def by_rate(key: Array, text: Text, count: Array) -> Array:
  """Masks each token with its score as the probability, as InforMask does.

  https://arxiv.org/abs/2210.11771, section 3.

  Args:
    key: the example's key.
    text: one row, its scores probabilities: `informative_rates` of
      `maskjax.data.statistics`.
    count: how many tokens to mask at most; where more are drawn, a random subset of
      them.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  of_rate, of_rest = jax.random.split(key)
  drawn = jax.random.uniform(of_rate, text.word.shape) < scores_of(text)
  noise = jax.random.uniform(of_rest, text.word.shape)
  return highest_where(noise, drawn & text.is_word, count)


def by_class(
  key: Array, text: Text, count: Array, *, weights: Array, of: str = "words"
) -> Array:
  """Masks whole words with the probability of their class.

  The words are visited in random order, and each is masked with the probability of its
  class, until `count` is reached (https://arxiv.org/abs/2208.10806, section 4.2).

  Args:
    key: the example's key.
    text: one row; the score of a word is the index of its class.
    count: how many tokens to mask; a word with more tokens than are left is skipped.
    weights: the probability of each class, float [C].
    of: what is masked as a whole, `words` or `tokens`, see `maskjax.masking.units`.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores, or `of` is neither `words` nor `tokens`.
  """
  units = number_units(text, of)
  of_word, of_order = jax.random.split(key)
  prob = weights[jnp.where(text.is_word, scores_of(text), 0).astype(jnp.int32)]
  # All tokens of a word share its number, and so its draw.
  chosen = text.is_word & (jax.random.uniform(of_word, units.shape)[units] < prob)
  order = jax.random.uniform(of_order, units.shape)
  return highest_units(order, jnp.where(chosen, units, -1), count)


def by_similarity(key: Array, text: Text, count: Array) -> Array:
  """Masks tokens with probabilities by the rank of their word (Difference-Masking).

  Tokens are drawn one after the other, without replacement. The weight of a token is
  the rank of its word's score among the words of the row: 1 for the lowest, 2 for the
  next, and so on (https://arxiv.org/abs/2305.14577, section 3.3, as its authors' code
  draws).

  Args:
    key: the example's key.
    text: one row, its scores `anchor_similarity` of `maskjax.data.statistics`.
    count: how many tokens to mask.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  units = number_words(text)
  of_unit = (
    jnp.full(units.shape, -jnp.inf)
    .at[units]
    .max(jnp.where(text.is_word, scores_of(text), -jnp.inf))
  )
  rank = jnp.argsort(jnp.argsort(of_unit)) - (of_unit == -jnp.inf).sum()
  weights = jnp.maximum(1 + rank, 1)
  # Log weights plus Gumbel noise: see `maskjax.masking.weighted`.
  noise = jax.random.gumbel(key, units.shape)
  return highest_where(jnp.log(weights[units]) + noise, text.is_word, count)


def terms_and_words(
  key: Array, text: Text, count: Array, *, term_ratio: float, word_ratio: float
) -> Array:
  """Masks some terms of a domain, each as a whole, and some other tokens (MSLM).

  https://arxiv.org/abs/2403.18025, section 3. The number of terms to mask is rounded
  stochastically, so that the expected share is exact in rows with few terms as well.

  Args:
    key: the example's key.
    text: one row; its scores number the terms from 1, and are 0 outside them.
    count: how many tokens to mask at most; terms with more than are left are skipped.
    term_ratio: share of the terms that is masked.
    word_ratio: share of the other tokens that is masked.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  of_count, of_terms, of_words = jax.random.split(key, 3)
  number = jnp.where(text.is_word, scores_of(text), 0).astype(jnp.int32)
  is_term = jnp.zeros(number.shape, bool).at[number - 1].max(number > 0)
  share = term_ratio * is_term.sum() + jax.random.uniform(of_count)
  noise = jax.random.uniform(of_terms, number.shape)
  chosen = highest_where(noise, is_term, jnp.floor(share).astype(jnp.int32))
  wanted = (number > 0) & chosen[number - 1]
  masked = highest_units(noise, jnp.where(wanted, number - 1, -1), count)
  others = text.is_word & (number == 0)
  left = jnp.minimum(jnp.round(word_ratio * others.sum()), count - masked.sum())
  noise = jax.random.uniform(of_words, number.shape)
  return masked | highest_where(noise, others, left.astype(jnp.int32))
