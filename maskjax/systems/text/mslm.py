"""MSLM: language model sensitivity by mask-specific losses.

Continues training on the texts of a domain, masks some of its terms, each as a whole,
and some of the other words; and an error weighs more where a term was masked, by how
many tokens of either kind are masked (https://arxiv.org/abs/2403.18025, section 3).
The terms are `terms` of `maskjax.data.statistics`. Config: `configs/text/mslm.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking.selection import highest_units, highest_where
from maskjax.masking.text_policy import text_masking
from maskjax.masking.units import scores_of
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  counted,
  text_parts,
  token_cross_entropy,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="mslm",
  family="text",
  paper="arXiv:2403.18025",
  config="configs/text/mslm.py",
  agrees_with="equations in NumPy",
  differs=("No second loss, of the named entities that are labeled in its data.",),
)


# Of the counts of masked tokens, each step: older steps count less and less.
_DECAY = 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mslm(MaskedTextObjective):
  """The objective of MSLM; `mslm` makes it from hyperparameters.

  `extra` holds `masked`, float32 [2]: how many tokens of terms and how many others were
  masked, from which the weights follow.
  """

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens, each times 1 and its kind's weight."""
    mask = self.mask(batch, step)
    text = self.masking.replace(batch, mask, step.key)
    logits = self.apply(variables, text, mask.masked_ids, rngs=self.rngs(batch, step))
    tokens, where = mask.take_masked(batch["token"]), counted(mask, batch)
    errors = token_cross_entropy(logits, tokens)
    is_term = mask.take_masked(batch["score"]) > 0
    of_terms, of_others = kind_weights(variables.extra["masked"])
    weights = 1 + jnp.where(is_term, of_terms, of_others)
    terms, others = Mean.of(errors, where & is_term), Mean.of(errors, where & ~is_term)
    loss = Loss.of(
      Mean.of(weights * errors, where),
      accuracy=Mean.of(logits.argmax(axis=-1) == tokens, where),
      terms=terms,
      others=others,
    )
    counts = jnp.stack([terms.weight, others.weight])
    return dataclasses.replace(loss, sums={"masked": counts})

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Counts what a step masked."""
    counts = _DECAY * variables.extra["masked"] + sums["masked"]
    return variables._replace(extra={"masked": counts})


def kind_weights(masked: Array) -> Array:
  """What errors of terms, and of other words, weigh besides 1: float32 [2].

  As in the authors' code: the softmax of two numbers, both the share of terms among the
  masked tokens, but at least one half for terms and at most one half for other words.
  Terms so never weigh less.

  Args:
    masked: [2], how many tokens of either kind are masked.

  Example:
    >>> print(kind_weights(jnp.array([30.0, 70.0])).round(2))
    [0.55 0.45]
  """
  total = masked.sum()
  share = jnp.where(total == 0, 0.5, masked[0] / jnp.where(total == 0, 1, total))
  return jax.nn.softmax(jnp.stack([jnp.maximum(share, 0.5), jnp.minimum(share, 0.5)]))


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


def mslm(
  *,
  term_ratio: float = 0.25,
  word_ratio: float = 0.15,
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (1.0, 0.0),
  **text: Unpack[TextKeywords],
) -> Mslm:
  """Makes MSLM from hyperparameters.

  Args:
    term_ratio: share of a row's terms that is masked.
    word_ratio: share of its other tokens that is masked.
    mask_ratio: share of a row's tokens that is masked at most, for which arrays have
      room.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  for name, ratio in (("term_ratio", term_ratio), ("word_ratio", word_ratio)):
    if not 0 <= ratio <= 1:
      raise UserError(f"{name}={ratio}: expected a number from 0 to 1")
  ratios = {"term_ratio": term_ratio, "word_ratio": word_ratio}
  encoder, rows = text_parts(needs_score=True, **text)
  return Mslm(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(
      rows.ids,
      mask={"name": f"{__name__}:terms_and_words", **ratios},
      mask_ratio=mask_ratio,
      replaced=replaced,
    ),
    counters={"masked": (2,)},
  )
