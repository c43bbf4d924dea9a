"""MSLM: language model sensitivity by mask-specific losses.

Continues training on the texts of a domain, masks some of its terms, each as a whole,
and some of the other tokens, and predicts all tokens of a row. An error weighs more
where a token is masked, and most where a term is, by how many tokens of either kind are
masked; and so does a row with more masked tokens (https://arxiv.org/abs/2403.18025,
section 3). The terms are `terms` of `maskjax.data.statistics`. Config:
`configs/text/mslm.py`.
"""

import dataclasses
import functools
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
from maskjax.masking.words import TextSampler
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
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
  differs=(
    "No second loss, of the named entities that are labeled in its data.",
    "Terms are those of a list, wherever they stand; the authors' are the entities "
    "that are labeled in their data.",
    "A row is weighed by its own masks; the authors' code weighs it by another row's, "
    "since it computes the weights of all rows once, and shuffles rows in each epoch.",
    "Masks are drawn anew in each step; the authors draw them once before training.",
    "What tokens of each kind weigh follows from those masked so far; the authors "
    "count all of their data before training.",
    "At most `mask_ratio` of a row is masked.",
    "Padding is not predicted.",
  ),
)


# Of the counts of masked tokens, each step: older steps count less and less.
_DECAY = 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mslm(MaskedTextObjective):
  """The objective of MSLM; `mslm` makes it from hyperparameters.

  `extra` holds `masked`, float32 [2]: how many tokens were masked as parts of terms,
  and how many others, from which the weights follow.

  Attributes:
    terms: draws the masked terms alone, as `masking` draws them.
  """

  terms: TextSampler

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The mean over rows of their tokens' weighted cross-entropy.

    A visible token weighs 1, a masked one 1 and its kind's weight; and a row 1 and the
    number of its masked tokens. As in the authors' code, a row's errors are divided by
    its length with padding.
    """
    mask = self.mask(batch, step)
    # The same key draws the same terms.
    ratio = self.masking.ratio
    is_term = self.masking.draw(
      batch, step.key, ratio=ratio, highest=ratio, sampler=self.terms
    ).masked
    text = self.masking.replace(batch, mask, step.key)
    rows, length = text.token.shape
    ids = jnp.broadcast_to(jnp.arange(length), (rows, length))
    logits = self.apply(variables, text, ids, rngs=self.rngs(batch, step))
    errors = token_cross_entropy(logits, batch["token"])
    of_terms, of_others = kind_weights(variables.extra["masked"])
    weights = 1 + jnp.where(mask.masked, jnp.where(is_term, of_terms, of_others), 0)
    weighted = jnp.where(text.is_padding, 0, weights * errors).sum(axis=-1) / length
    of_row = (1 + mask.masked.sum(axis=-1)) * weighted
    where = mask.masked & valid(batch)[:, None]
    terms, others = Mean.of(errors, where & is_term), Mean.of(errors, where & ~is_term)
    loss = Loss.of(
      Mean.of(of_row, valid(batch)),
      accuracy=Mean.of(logits.argmax(axis=-1) == batch["token"], where),
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
  """Masks some terms of a domain, each as a whole, and some of the rest (MSLM).

  https://arxiv.org/abs/2403.18025, section 3. The rest are all tokens that are not
  masked as parts of terms, those of visible terms too; each is masked by itself.

  Args:
    key: the example's key.
    text: one row; its scores number the terms from 1, and are 0 outside them.
    count: how many tokens to mask at most. Terms with more than are left are skipped;
      of the rest, where too many are drawn, a random subset is masked.
    term_ratio: see `masked_terms`.
    word_ratio: probability that a token of the rest is masked.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  masked = masked_terms(key, text, count, ratio=term_ratio)
  of_rate, of_rest = jax.random.split(jax.random.split(key)[1])
  drawn = jax.random.uniform(of_rate, masked.shape) < word_ratio
  noise = jax.random.uniform(of_rest, masked.shape)
  rest = drawn & text.is_word & ~masked
  return masked | highest_where(noise, rest, count - masked.sum())


def masked_terms(key: Array, text: Text, count: Array, *, ratio: float) -> Array:
  """The terms that `terms_and_words` masks under the same key.

  Args:
    key: the example's key.
    text: see `terms_and_words`.
    count: see `terms_and_words`.
    ratio: share of the row's terms that is masked, rounded down.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  number = jnp.where(text.is_word, scores_of(text), 0).astype(jnp.int32)
  is_term = jnp.zeros(number.shape, bool).at[number - 1].max(number > 0)
  # What float32 leaves just below a whole number is that number.
  wanted = jnp.floor(ratio * is_term.sum() + 1e-4).astype(jnp.int32)
  noise = jax.random.uniform(jax.random.split(key)[0], number.shape)
  chosen = highest_where(noise, is_term, wanted)
  of_chosen = (number > 0) & chosen[number - 1]
  return highest_units(noise, jnp.where(of_chosen, number - 1, -1), count)


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
    term_ratio: share of a row's terms that is masked, rounded down.
    word_ratio: probability that another token is masked.
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
    terms=functools.partial(masked_terms, ratio=term_ratio),
  )
