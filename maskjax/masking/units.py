"""What samplers of text mask as a whole: words or tokens, numbered from 0 in a row."""

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.tokens.text import Text

UNITS = ("words", "tokens")


def number_words(text: Text) -> Array:
  """Numbers the words of a row.

  Args:
    text: one row of N tokens.

  Returns:
    int32 [N]: the number of each token's word, from 0; -1 outside words, as of
    padding.

  Example:
    >>> row = dict(token=[2, 9, 9, 9, 3], segment=[1] * 5, position=[0, 1, 2, 3, 4])
    >>> row = {name: jnp.array(values) for name, values in row.items()}
    >>> number_words(Text(**row, word=jnp.array([-1, 0, 0, 1, -1]))).tolist()
    [-1, 0, 0, 1, -1]
  """

  def differs(values: Array) -> Array:
    return jnp.pad(values[1:] != values[:-1], (1, 0), constant_values=True)

  begins = text.is_word & (differs(text.word) | differs(text.segment))
  return jnp.where(text.is_word, jnp.cumsum(begins) - 1, -1)


def number_units(text: Text, of: str) -> Array:
  """Numbers the units of a row that are masked as a whole.

  Args:
    text: one row of N tokens.
    of: `words`, see `number_words`; or `tokens`, where each token is a unit of its own:
      for vocabularies that split most words into many tokens.

  Returns:
    int32 [N]; -1 outside words, as of padding.

  Raises:
    UserError: `of` is neither `words` nor `tokens`.
  """
  check_units(of)
  if of == "words":
    return number_words(text)
  return jnp.where(text.is_word, jnp.arange(text.word.size), -1)


def check_units(of: str) -> None:
  """Raises a `UserError` if `of` is neither `words` nor `tokens`."""
  if of not in UNITS:
    raise UserError(f"of={of!r}: expected 'words' or 'tokens'")


def scores_of(text: Text) -> Array:
  """The scores of a row: float32 [N].

  Raises:
    UserError: the data have no statistic, and so no scores.
  """
  if text.score is None:
    raise UserError(
      "the rows have no 'score': expected data.train.statistic, a name in "
      "maskjax.data.statistics"
    )
  return text.score
