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
  "ngrams",
  "spans",
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
