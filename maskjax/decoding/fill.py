"""Predictions for the masks of texts, and pseudo-likelihoods of whole texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from maskjax.decoding.trained import Trained
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.tokens import Text


class Prediction(NamedTuple):
  """A token that is predicted for a mask.

  Attributes:
    text: of the token.
    probability: of the token under the model.
  """

  text: str
  probability: float


def fill(
  trained: Trained, texts: Sequence[str], *, top: int = 5
) -> list[list[list[Prediction]]]:
  """Predicts the token of each mask of texts, each by itself.

  Args:
    trained: see `maskjax.decoding.load`.
    texts: with a mask, `trained.vocabulary.mask_text`, or several in each.
    top: how many predictions for each mask.

  Returns:
    For each text, for each of its masks, the `top` likeliest tokens, likeliest first.

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
        "where a token is to be predicted"
      )
  found, is_masked = _log_probabilities(trained, columns, masked)

  def predictions(log_probabilities: np.ndarray) -> list[Prediction]:
    best = np.argsort(-log_probabilities)[:top]
    decode = trained.vocabulary.decode
    return [
      Prediction(decode([token]), float(np.exp(log_probabilities[token])))
      for token in best
    ]

  return [
    [predictions(log_probabilities) for log_probabilities in row[where]]
    for row, where in zip(found, is_masked, strict=True)
  ]


def pseudo_log_likelihood(trained: Trained, text: str) -> np.ndarray:
  """The log-probability of each token of a text, given all others.

  Each is masked in turn (https://arxiv.org/abs/1910.14659, equation 1).

  Args:
    trained: see `maskjax.decoding.load`.
    text: to score, of T tokens.

  Returns:
    float32 [T], natural logarithms.

  Raises:
    UserError: the text is too long.
  """
  row = trained.rows([text])
  (positions,) = np.nonzero(row["word"][0] >= 0)
  columns = {name: np.repeat(c, len(positions), axis=0) for name, c in row.items()}
  masked = np.zeros(columns["token"].shape, bool)
  masked[np.arange(len(positions)), positions] = True
  tokens = columns["token"][masked]
  columns["token"] = np.where(masked, trained.vocabulary.mask, columns["token"])
  found, _ = _log_probabilities(trained, columns, masked)
  return found[np.arange(len(positions)), 0, tokens]


def pseudo_perplexity(trained: Trained, texts: Sequence[str]) -> float:
  """The exponential of the mean of `-pseudo_log_likelihood` over all tokens.

  https://arxiv.org/abs/1910.14659, equation 3.
  """
  found = np.concatenate([pseudo_log_likelihood(trained, text) for text in texts])
  return float(np.exp(-found.mean()))


def _log_probabilities(
  trained: Trained, columns: Mapping[str, np.ndarray], masked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Predicts the masked tokens of rows, in order.

  Args:
    trained: the model.
    columns: of R rows.
    masked: bool [R, N], of which M in a row at most.

  Returns:
    Log-probabilities, float32 [R, M, V], and which of them are of masked tokens, bool
    [R, M].
  """
  most = int(masked.sum(axis=1).max())

  def mask_of(columns: Mapping[str, Any]) -> Mask:
    spare = jnp.asarray(columns["segment"] == 0)
    return Mask.at_most(jnp.asarray(columns["masked"]), num_masked=most, spare=spare)

  whole = {**columns, "masked": masked}
  found = trained.batched(lambda b: trained.predict(Text.of(b), mask_of(b)), whole)
  return found, np.asarray(mask_of(whole).is_masked)
