"""Mask samplers of text: `sample(key, text, count) -> bool [N]`, one example each.

`text` is a `maskjax.tokens.Text` of one row, and `count` how many of its tokens to
mask, an int32 scalar, since rows are not equally full. No sampler masks more, and none
masks what is no word.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.masking.informed import highest
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

# What may be masked at once, see `units_of`.
UNITS = ("words", "tokens")

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
  """
  noise = jax.random.uniform(key, text.word.shape)
  return most(noise, text.is_word, count)


def whole_words(key: Array, text: Text, count: Array) -> Array:
  """Masks whole words uniformly at random, without replacement.

  As BERT's later models do: a word that no longer fits is passed over.

  Args:
    key: the example's key.
    text: one row.
    count: how many tokens to mask; fewer where no word fits the rest.

  Returns:
    bool [N].
  """
  units = words(text)
  return in_order(jax.random.uniform(key, units.shape), units, count)


def spans(
  key: Array,
  text: Text,
  count: Array,
  *,
  p: float = 0.2,
  longest: int = 10,
  of: str = "words",
) -> Array:
  """Masks runs of whole words, their lengths from a geometric distribution.

  As SpanBERT does (https://arxiv.org/abs/1907.10529, section 3.1): a run begins at the
  word of a token drawn uniformly among the visible ones, and ends with its document;
  the last run is cut where the count is reached.

  Args:
    key: the example's key.
    text: one row.
    count: how many tokens to mask.
    p: parameter of the distribution.
    longest: words of a run at most; the distribution is cut there, to a mean of 3.8.
    of: see `units_of`.

  Returns:
    bool [N].

  Raises:
    UserError: see `units_of`.
  """
  units = units_of(text, of)
  lengths = jnp.arange(1, longest + 1)
  likely = jnp.log1p(-p) * lengths

  def more(state: tuple[Array, Array]) -> tuple[Array, Array]:
    masked, key = state
    key, of_length, of_start = jax.random.split(key, 3)
    length = lengths[jax.random.categorical(of_length, likely)]
    free = text.is_word & ~masked
    start = jax.random.categorical(of_start, jnp.where(free, 0.0, -jnp.inf))
    run = (units >= units[start]) & (units < units[start] + length)
    run &= (text.segment == text.segment[start]) & free
    left = count - masked.sum()
    return masked | (run & (jnp.cumsum(run) <= left)), key

  # Each run masks at least the token that was drawn.
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
    count: how many tokens to mask; fewer where no n-gram and no token fits the rest.

  Returns:
    bool [N].
  """
  begins = text.is_word & (scores(text) >= 0)
  units = jnp.where(text.is_word, jnp.cumsum(begins) - 1, -1)
  return in_order(jax.random.uniform(key, units.shape), units, count)


def by_rate(key: Array, text: Text, count: Array) -> Array:
  """Masks each token as often as its score says, as InforMask does.

  https://arxiv.org/abs/2210.11771, section 3.

  Args:
    key: the example's key.
    text: one row; its scores are rates, see `maskjax.data.statistics`.
    count: how many tokens to mask at most; where the rates ask for more, these are
      drawn from them.

  Returns:
    bool [N].
  """
  of_rate, of_rest = jax.random.split(key)
  drawn = jax.random.uniform(of_rate, text.word.shape) < scores(text)
  noise = jax.random.uniform(of_rest, text.word.shape)
  return most(noise, drawn & text.is_word, count)


def by_class(
  key: Array, text: Text, count: Array, *, weights: Array, of: str = "words"
) -> Array:
  """Masks whole words, those of some classes more often than others.

  The words are gone through in a random order; each is masked with the probability of
  its class, until there are enough (https://arxiv.org/abs/2208.10806, section 4.2).

  Args:
    key: the example's key.
    text: one row; the score of a word is the number of its class.
    count: how many tokens to mask; a word that no longer fits is passed over.
    weights: the probability of each class, float [C].
    of: see `units_of`.

  Returns:
    bool [N].

  Raises:
    UserError: see `units_of`.
  """
  units = units_of(text, of)
  of_word, of_order = jax.random.split(key)
  likely = weights[jnp.where(text.is_word, scores(text), 0).astype(jnp.int32)]
  # All tokens of a word have its number, and so its draw.
  chosen = text.is_word & (jax.random.uniform(of_word, units.shape)[units] < likely)
  order = jax.random.uniform(of_order, units.shape)
  return in_order(order, jnp.where(chosen, units, -1), count)


def by_similarity(key: Array, text: Text, count: Array) -> Array:
  """Masks tokens, those of words with high scores more often (Difference-Masking).

  Tokens are drawn one after the other, without replacement, and as likely as the rank
  of their word among the row's words: the last one weighs 1, the next one 2, and so on
  (https://arxiv.org/abs/2305.14577, section 3.3, as its authors' code draws).

  Args:
    key: the example's key.
    text: one row, with a score for each word.
    count: how many tokens to mask.

  Returns:
    bool [N].
  """
  units = words(text)
  of_unit = (
    jnp.full(units.shape, -jnp.inf)
    .at[units]
    .max(jnp.where(text.is_word, scores(text), -jnp.inf))
  )
  rank = jnp.argsort(jnp.argsort(of_unit)) - (of_unit == -jnp.inf).sum()
  weights = jnp.maximum(1 + rank, 1)
  # Weights' logarithms and Gumbel noise: see `maskjax.masking.weighted`.
  noise = jax.random.gumbel(key, units.shape)
  return most(jnp.log(weights[units]) + noise, text.is_word, count)


def terms_and_words(
  key: Array, text: Text, count: Array, *, term_ratio: float, word_ratio: float
) -> Array:
  """Masks some terms of a domain, each as a whole, and some other tokens (MSLM).

  https://arxiv.org/abs/2403.18025, section 3. How many terms is rounded at random, so
  that those of rows with few are masked as often.

  Args:
    key: the example's key.
    text: one row; its scores number the terms from 1 on, 0 is none.
    count: how many tokens to mask at most; terms that do not fit are passed over.
    term_ratio: share of the terms that is masked.
    word_ratio: share of the other tokens that is masked.

  Returns:
    bool [N].
  """
  of_count, of_terms, of_words = jax.random.split(key, 3)
  number = jnp.where(text.is_word, scores(text), 0).astype(jnp.int32)
  is_term = jnp.zeros(number.shape, bool).at[number - 1].max(number > 0)
  share = term_ratio * is_term.sum() + jax.random.uniform(of_count)
  noise = jax.random.uniform(of_terms, number.shape)
  chosen = most(noise, is_term, jnp.floor(share).astype(jnp.int32))
  wanted = (number > 0) & chosen[number - 1]
  masked = in_order(noise, jnp.where(wanted, number - 1, -1), count)
  others = text.is_word & (number == 0)
  left = jnp.minimum(jnp.round(word_ratio * others.sum()), count - masked.sum())
  noise = jax.random.uniform(of_words, number.shape)
  return masked | most(noise, others, left.astype(jnp.int32))


def scores(text: Text) -> Array:
  """The scores of a row: float32 [N].

  Raises:
    UserError: it has none.
  """
  if text.score is None:
    raise UserError(
      "the rows have no 'score': expected data.train.statistic, a name in "
      "maskjax.data.statistics"
    )
  return text.score


def units_of(text: Text, of: str) -> Array:
  """Numbers what is masked at once: int32 [N]; -1 for what is no word.

  Args:
    text: one row.
    of: `words`, see `words`; or `tokens`: each counts as a word, for texts whose words
      are cut into many.

  Raises:
    UserError: neither of them.
  """
  check_units(of)
  if of == "words":
    return words(text)
  return jnp.where(text.is_word, jnp.arange(text.word.size), -1)


def check_units(of: str) -> None:
  """Raises a `UserError` unless `units_of` knows how to number what is asked for."""
  if of not in UNITS:
    raise UserError(f"of={of!r}: expected 'words' or 'tokens'")


def words(text: Text) -> Array:
  """Numbers the words of a row from 0 on: int32 [N]; -1 for what is no word.

  Example:
    >>> row = dict(token=[2, 9, 9, 9, 3], segment=[1] * 5, position=[0, 1, 2, 3, 4])
    >>> row = {name: jnp.array(values) for name, values in row.items()}
    >>> words(Text(**row, word=jnp.array([-1, 0, 0, 1, -1]))).tolist()
    [-1, 0, 0, 1, -1]
  """

  def differs(values: Array) -> Array:
    return jnp.pad(values[1:] != values[:-1], (1, 0), constant_values=True)

  begins = text.is_word & (differs(text.word) | differs(text.segment))
  return jnp.where(text.is_word, jnp.cumsum(begins) - 1, -1)


def most(scores: Array, where: Array, count: Array) -> Array:
  """Picks the tokens with the highest scores: float [N], bool [N] to bool [N].

  Args:
    scores: of the tokens.
    where: which of them may be picked.
    count: how many, or all where there are fewer.

  Example:
    >>> most(jnp.array([3.0, 1.0, 2.0]), jnp.array([False, True, True]), 1).tolist()
    [False, False, True]
  """
  return where & highest(jnp.where(where, scores, -jnp.inf), count)


def in_order(scores: Array, units: Array, count: Array) -> Array:
  """Picks whole units by their scores, the highest first, and passes over what is long.

  Args:
    scores: of the units, by their numbers: [N], of which the first ones are used.
    units: of each token, int [N]; -1 for none.
    count: how many tokens at most.

  Returns:
    bool [N].

  Example:
    >>> in_order(jnp.array([0.5, 0.9, 0.1]), jnp.array([0, 1, 1]), 1).tolist()
    [True, False, False]
  """
  sizes = jnp.zeros(units.shape, jnp.int32).at[units].add(units >= 0)
  order = jnp.argsort(-jnp.where(sizes > 0, scores, -jnp.inf))

  def take(left: Array, unit: Array) -> tuple[Array, Array]:
    fits = (sizes[unit] > 0) & (sizes[unit] <= left)
    return left - fits * sizes[unit], fits

  _, taken = jax.lax.scan(take, jnp.int32(count), order)
  picked = jnp.zeros(units.shape, bool).at[order].set(taken)
  return picked[units] & (units >= 0)
