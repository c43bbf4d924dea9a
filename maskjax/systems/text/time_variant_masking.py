"""Time-variant masking: learning better masking for better pre-training.

Both how much is masked and what is masked change over a run. The share of masked words
falls from about twice the usual one to nearly none, along a cosine or a line; and words
of the classes, such as parts of speech, with the largest errors so far are masked more
often (https://arxiv.org/abs/2208.10806, section 4). The class of a word is its score,
of `word_classes` of `maskjax.data.statistics`, where one's own tagger can be named.
Config: `configs/text/time_variant_masking.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError, did_you_mean
from maskjax.losses import Loss
from maskjax.masking import Mask
from maskjax.masking.selection import highest_units
from maskjax.masking.text_policy import text_masking
from maskjax.masking.units import check_units, number_units, scores_of
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  counted,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="time_variant_masking",
  family="text",
  paper="arXiv:2208.10806",
  config="configs/text/time_variant_masking.py",
  agrees_with="equations in NumPy",
  differs=(
    "Both changes are made at once unless one is left out; the authors' commands, and "
    "so the paper settings, make one of them.",
    "Classes are those of a tagger of one's own; the authors take spaCy's.",
    "Mean errors are over the whole batch; the authors' are of a device's part of it.",
    "A falling ratio without classes masks exactly that share of a row; the authors "
    "mask each token by itself.",
    "Rows may hold several documents, which do not attend to each other; the authors' "
    "hold one, or a part of it.",
    "paper_decay begins anew unless `init_from` names a run; the authors go on from "
    "the released BERT.",
  ),
)

DECAYS = ("cosine", "line", "none")

# Added to the cosine, as in the paper, so that it does not end at nothing.
_LEAST = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeVariantMasking(MaskedTextObjective):
  """The objective of time-variant masking; `time_variant_masking` makes it.

  `extra` holds `errors`, float32 [C], the running mean of the errors of each class. The
  ratio of its `masking` is the highest one, for which all arrays have room; where there
  are no classes, its sampler masks all words alike.

  Attributes:
    decay: one of `DECAYS`, see `decayed`.
    mean_ratio: the share of masked tokens around which it falls.
    num_classes: C, of words; 0 masks all alike.
    momentum: of the running means.
    sharpness: see `class_weights`.
    of: what of a class is masked at once, see `maskjax.masking.units.number_units`.
  """

  decay: str
  mean_ratio: float
  num_classes: int
  momentum: float
  sharpness: float
  of: str

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the tokens that this step masks."""
    mask = self.scheduled_mask(variables, batch, step)
    if not self.num_classes:
      return self.masked_token_loss(variables, batch, step, mask)
    text = self.masking.replace(batch, mask, step.key)
    logits = self.apply(variables, text, mask.masked_ids, rngs=self.rngs(batch, step))
    tokens, where = mask.take_masked(batch["token"]), counted(mask, batch)
    # [B, M, C]
    classes = jax.nn.one_hot(
      mask.take_masked(batch["score"]).astype(jnp.int32), self.num_classes
    )
    classes = jnp.where(where[..., None], classes, 0)
    errors = jax.lax.stop_gradient(token_cross_entropy(logits, tokens))
    sums = {
      "errors": jnp.einsum("bm,bmc->c", errors, classes),
      "counts": classes.sum(axis=(0, 1)),
    }
    return dataclasses.replace(token_loss(logits, tokens, where), sums=sums)

  def scheduled_mask(self, variables: Variables, batch: Batch, step: Step) -> Mask:
    """The masks of a step: as many words as it masks, of the classes with errors."""
    ratio = decayed(self.decay, self.mean_ratio, step.progress)
    sampler = None
    if self.num_classes:
      weights = class_weights(variables.extra["errors"], self.sharpness)
      sampler = functools.partial(by_class, weights=weights, of=self.of)
    return self.masking.draw(
      batch, step.key, ratio=ratio, highest=self.masking.ratio, sampler=sampler
    )

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the mean errors of the classes that were masked."""
    if not self.num_classes:
      return variables
    errors, counts = sums["errors"], sums["counts"]
    mean, old = errors / jnp.maximum(counts, 1), variables.extra["errors"]
    moved = self.momentum * old + (1 - self.momentum) * mean
    return variables._replace(extra={"errors": jnp.where(counts > 0, moved, old)})


def decayed(decay: str, mean_ratio: float, progress: Array | float) -> Array:
  """The share of tokens that is masked.

  Args:
    decay: `cosine`, p (1 + cos(pi t)) + 0.02; `line`, 2 p (1 - t); or `none`, p.
    mean_ratio: p.
    progress: t, what share of the run is done.

  Example:
    >>> [round(float(decayed("cosine", 0.15, t)), 3) for t in (0.0, 0.5, 1.0)]
    [0.32, 0.17, 0.02]
  """
  progress = jnp.asarray(progress, jnp.float32)
  if decay == "cosine":
    return mean_ratio * (1 + jnp.cos(jnp.pi * progress)) + _LEAST
  if decay == "line":
    return 2 * mean_ratio * (1 - progress)
  return jnp.full_like(progress, mean_ratio)


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


def class_weights(errors: Array, sharpness: float) -> Array:
  """How likely a word of each class is to be masked when its turn comes.

  The logistic function of how many standard deviations the error of its class lies
  above the mean of all classes, times `sharpness`; one half for all at first.

  Args:
    errors: float [C].
    sharpness: what the standard deviations are multiplied by.

  Example:
    >>> class_weights(jnp.array([2.0, 2.0, 2.0]), 2.0).tolist()
    [0.5, 0.5, 0.5]
  """
  std = errors.std(ddof=1)
  std = jnp.where(std == 0, 1e-4, std)
  return jax.nn.sigmoid(sharpness * (errors - errors.mean()) / std)


def time_variant_masking(
  *,
  mask_ratio: float = 0.15,
  decay: str = "cosine",
  num_classes: int = 17,
  momentum: float = 0.999,
  sharpness: float = 2.0,
  of: str = "words",
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> TimeVariantMasking:
  """Makes time-variant masking from hyperparameters.

  Args:
    mask_ratio: the share around which it falls, from twice that or a little more.
    decay: along a `cosine` or a `line`; `none` keeps it.
    num_classes: how many classes of words the data has, 17 parts of speech; 0 masks
      tokens of all classes alike, and no scores are needed.
    momentum: of the running mean of each class's errors, a step.
    sharpness: see `class_weights`.
    of: what of a class is masked at once: `words`; or `tokens`, for texts whose words
      are cut into many.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  if decay not in DECAYS:
    raise UserError(f"decay={decay!r}: {did_you_mean(str(decay), DECAYS)}")
  highest = float(decayed(decay, mask_ratio, 0.0))
  if mask_ratio <= 0 or highest >= 1:
    raise UserError(
      f"mask_ratio={mask_ratio}: expected a number above 0; masks {highest:.2f} at "
      "first, expected less than 1"
    )
  if num_classes < 0 or num_classes == 1:
    raise UserError(f"num_classes={num_classes}: expected 2 or more, or 0 for none")
  if not 0 <= momentum < 1:
    raise UserError(f"momentum={momentum}: expected at least 0 and less than 1")
  check_units(of)
  encoder, rows = text_parts(needs_score=num_classes > 0, **text)
  return TimeVariantMasking(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(
      rows.ids,
      mask="whole_words" if num_classes else "tokens",
      mask_ratio=highest,
      replaced=replaced,
    ),
    counters={"errors": (num_classes,)} if num_classes else {},
    decay=decay,
    mean_ratio=mask_ratio,
    num_classes=num_classes,
    momentum=momentum,
    sharpness=sharpness,
    of=of,
  )
