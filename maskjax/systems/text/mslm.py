"""MSLM: language model sensitivity by mask-specific losses.

Goes on training a model on the texts of a domain, of which it masks some of the terms,
each as a whole, and some of the other words; and an error weighs more where a term was
masked. By how much follows from how many tokens of either kind are masked
(https://arxiv.org/abs/2403.18025, section 3). The terms are `terms` of
`maskjax.data.statistics`. The paper's second loss, of the named entities that are
labeled in its data, is left out. Config: `configs/text/mslm.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_cross_entropy,
)
from maskjax.systems.system import System

SYSTEM = System(
  name="mslm",
  family="text",
  paper="arXiv:2403.18025",
  config="configs/text/mslm.py",
  agrees_with="equations in NumPy",
)

# Steps over which masked tokens are counted: the older ones count less and less.
_DECAY = 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskSpecific(TextObjective):
  """The objective of MSLM; `mslm` makes it from hyperparameters.

  `extra` holds `masked`, float32 [2], how many tokens of terms and how many others were
  masked, which the weights follow.
  """

  def first_extra(self) -> Any:
    """Nothing was masked."""
    return {"masked": jnp.zeros(2)}

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """Adds what a step masked."""
    del params, step
    return {"masked": _DECAY * extra["masked"] + sums["masked"]}

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of the masked tokens, each times 1 and its kind's weight."""
    mask = self.mask(batch, key)
    text = self.seen(batch, mask, key)
    logits = self.predict(params, text, mask, self.rngs(batch, key))
    tokens = mask.take_masked(batch["token"])
    errors = token_cross_entropy(logits, tokens)
    where = mask.is_masked & valid(batch)[:, None]
    is_term = mask.take_masked(batch["score"]) > 0
    of_terms, of_words = kind_weights(extra["masked"])
    weights = 1 + jnp.where(is_term, of_terms, of_words)
    terms, others = Mean.of(errors, where & is_term), Mean.of(errors, where & ~is_term)
    right = logits.argmax(axis=-1) == tokens
    return dataclasses.replace(
      Loss.of(
        Mean.of(weights * errors, where),
        accuracy=Mean.of(right, where),
        terms=terms,
        others=others,
      ),
      sums={"masked": jnp.stack([terms.weight, others.weight])},
    )


def kind_weights(masked: Array) -> Array:
  """What errors of terms, and of other words, weigh besides 1: float32 [2].

  As in the authors' code: the softmax of two numbers, both the share of terms among the
  masked tokens, but at least one half for terms and at most one half for other words.
  Terms so never weigh less.

  Args:
    masked: [2], how many tokens of either kind are hidden.

  Example:
    >>> print(kind_weights(jnp.array([30.0, 70.0])).round(2))
    [0.55 0.45]
  """
  total = masked.sum()
  share = jnp.where(total == 0, 0.5, masked[0] / jnp.where(total == 0, 1, total))
  return jax.nn.softmax(jnp.stack([jnp.maximum(share, 0.5), jnp.minimum(share, 0.5)]))


def mslm(
  *,
  term_ratio: float = 0.25,
  word_ratio: float = 0.15,
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (1.0, 0.0),
  **text: Unpack[TextKeywords],
) -> MaskSpecific:
  """Makes MSLM from hyperparameters.

  Args:
    term_ratio: share of a row's terms that is masked.
    word_ratio: share of its other tokens that is masked.
    mask_ratio: share of a row's tokens that is masked at most, for which arrays have
      room.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  for name, ratio in (("term_ratio", term_ratio), ("word_ratio", word_ratio)):
    if not 0 <= ratio <= 1:
      raise UserError(f"{name}={ratio}: expected a number from 0 to 1")
  ratios = {"term_ratio": term_ratio, "word_ratio": word_ratio}
  encoder, fields = text_parts(
    mask={"name": "terms_and_words", **ratios},
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  return MaskSpecific(model=MaskedLM(encoder=encoder), reads_score=True, **fields)
