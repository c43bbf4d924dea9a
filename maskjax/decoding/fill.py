"""Filling in masks, and what a model thinks of whole texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from maskjax.decoding.trained import Trained
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.tokens import Text


class Guess(NamedTuple):
  """What may stand in place of a mask.

  Attributes:
    text: of the token.
    probability: of it, under the model.
  """

  text: str
  probability: float


def fill(
  trained: Trained, texts: Sequence[str], *, top: int = 5
) -> list[list[list[Guess]]]:
  """Guesses what masks stand for, each by itself.

  Args:
    trained: see `maskjax.decoding.load`.
    texts: with a mask, `trained.vocabulary.mask_text`, or several in each.
    top: how many guesses of each mask.

  Returns:
    Of each text, of each of its masks, the likeliest tokens, likeliest first.

  Raises:
    UserError: a text has no mask, or is too long.
  """
  if top < 1:
    raise UserError(f"top={top}: expected at least 1")
  columns = trained.rows(texts)
  masked = columns["token"] == trained.vocabulary.mask
  for text, count in zip(texts, masked.sum(axis=1), strict=True):
    if not count:
      raise UserError(
        f"the text {text[:40]!r} has no mask: expected {trained.vocabulary.mask_text} "
        "where a token is to be guessed"
      )
  found, asked = _log_probabilities(trained, columns, masked)

  def guesses(likely: np.ndarray) -> list[Guess]:
    best = np.argsort(-likely)[:top]
    decode = trained.vocabulary.decode
    return [Guess(decode([token]), float(np.exp(likely[token]))) for token in best]

  return [
    [guesses(likely) for likely in row[where]]
    for row, where in zip(found, asked, strict=True)
  ]


def pseudo_log_likelihood(trained: Trained, text: str) -> np.ndarray:
  """How likely each token of a text is, given all others.

  Each is masked in turn (https://arxiv.org/abs/1910.14659, equation 1).

  Args:
    trained: see `maskjax.decoding.load`.
    text: to judge.

  Returns:
    float32 [T], natural logarithms.

  Raises:
    UserError: the text is too long.
  """
  row = trained.rows([text])
  (places,) = np.nonzero(row["word"][0] >= 0)
  columns = {name: np.repeat(c, len(places), axis=0) for name, c in row.items()}
  masked = np.zeros(columns["token"].shape, bool)
  masked[np.arange(len(places)), places] = True
  asked = columns["token"][masked]
  columns["token"] = np.where(masked, trained.vocabulary.mask, columns["token"])
  found, _ = _log_probabilities(trained, columns, masked)
  return found[np.arange(len(places)), 0, asked]


def pseudo_perplexity(trained: Trained, texts: Sequence[str]) -> float:
  """The exponential of the mean of `-pseudo_log_likelihood` over all tokens.

  https://arxiv.org/abs/1910.14659, equation 3.
  """
  found = np.concatenate([pseudo_log_likelihood(trained, text) for text in texts])
  return float(np.exp(-found.mean()))


def _log_probabilities(
  trained: Trained, columns: Mapping[str, np.ndarray], masked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What rows say of their masked places, in order.

  Args:
    trained: the model.
    columns: of R rows.
    masked: bool [R, N], of which M in a row at most.

  Returns:
    Log-probabilities, float32 [R, M, V], and which of them are of masked places, bool
    [R, M].
  """
  most = int(masked.sum(axis=1).max())

  def mask_of(columns: Mapping[str, Any]) -> Mask:
    spare = jnp.asarray(columns["segment"] == 0)
    return Mask.at_most(jnp.asarray(columns["masked"]), num_masked=most, spare=spare)

  whole = {**columns, "masked": masked}
  found = trained.batched(lambda b: trained.predict(Text.of(b), mask_of(b)), whole)
  return found, np.asarray(mask_of(whole).is_masked)
