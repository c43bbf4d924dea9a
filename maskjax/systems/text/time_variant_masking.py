"""Time-variant masking: learning better masking for better pre-training.

Both how much is masked and what is masked change over a run. The share of masked words
falls from about twice the usual one to nearly none, along a cosine or a line; and words
of the classes, such as parts of speech, in which the model has erred most so far are
masked more often (https://arxiv.org/abs/2208.10806, section 4). The class of a word is
its score, of `word_classes` of `maskjax.data.statistics`, where one's own tagger can be
named. Config: `configs/text/time_variant_masking.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking import words
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.resolve import did_you_mean
from maskjax.systems.system import System

SYSTEM = System(
  name="time_variant_masking",
  family="text",
  paper="arXiv:2208.10806",
  config="configs/text/time_variant_masking.py",
  agrees_with="equations in NumPy",
)

DECAYS = ("cosine", "line", "none")

# Added to the cosine, as in the paper, so that it does not end at nothing.
_LEAST = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeVariantMasking(TextObjective):
  """The objective of time-variant masking; `time_variant_masking` makes it.

  `extra` holds the `step`, and `errors`, float32 [C], the running mean of the errors of
  each class. `mask_ratio` is the highest one, for which all arrays have room; where
  there are classes, `sampler` is what masks them all alike.

  Attributes:
    decay: one of `DECAYS`, see `decayed`.
    mean_ratio: the share of masked tokens around which it falls.
    num_steps: the last step.
    num_classes: C, of words; 0 masks all alike.
    momentum: of the running means.
    sharpness: see `class_weights`.
    of: what of a class is masked at once, see `maskjax.masking.words.units_of`.
  """

  decay: str
  mean_ratio: float
  num_steps: int
  num_classes: int
  momentum: float
  sharpness: float
  of: str

  def first_extra(self) -> Any:
    """The first step, and no errors."""
    return {"step": jnp.int32(0), "errors": jnp.zeros(self.num_classes)}

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """The schedule goes on, and the errors of the classes that were masked follow."""
    del params
    if not self.num_classes:
      return {**extra, "step": step + 1}
    errors, counts = sums["errors"], sums["counts"]
    mean = errors / jnp.maximum(counts, 1)
    moved = self.momentum * extra["errors"] + (1 - self.momentum) * mean
    errors = jnp.where(counts > 0, moved, extra["errors"])
    return {"step": step + 1, "errors": errors}

  def ratio(self, step: Array) -> Array:
    """The share of the tokens that a step masks."""
    return decayed(self.decay, self.mean_ratio, jnp.clip(step / self.num_steps, 0, 1))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of the tokens that this step masks."""
    ratio = self.ratio(extra["step"])
    if not self.num_classes:
      mask = self.draw(self.sampler, ratio, batch, key, highest=self.mask_ratio)
      return self.masked_token_loss(mask, params, batch, key)
    weights = class_weights(extra["errors"], self.sharpness)
    weighted = functools.partial(words.by_class, weights=weights, of=self.of)
    mask = self.draw(weighted, ratio, batch, key, highest=self.mask_ratio)
    text = self.seen(batch, mask, key)
    logits = self.predict(params, text, mask, self.rngs(batch, key))
    tokens = mask.take_masked(batch["token"])
    where = mask.is_masked & valid(batch)[:, None]
    # [B, M, C]
    classes = jax.nn.one_hot(
      mask.take_masked(batch["score"]).astype(jnp.int32), self.num_classes
    )
    counted = jnp.where(where[..., None], classes, 0)
    errors = jax.lax.stop_gradient(token_cross_entropy(logits, tokens))
    return dataclasses.replace(
      token_loss(logits, tokens, where),
      sums={
        "errors": jnp.einsum("bm,bmc->c", errors, counted),
        "counts": counted.sum(axis=(0, 1)),
      },
    )


def decayed(decay: str, mean_ratio: float, done: Array | float) -> Array:
  """The share of tokens that is masked.

  Args:
    decay: `cosine`, p (1 + cos(pi t)) + 0.02; `line`, 2 p (1 - t); or `none`, p.
    mean_ratio: p.
    done: t, what share of the run is done.

  Example:
    >>> [round(float(decayed("cosine", 0.15, t)), 3) for t in (0.0, 0.5, 1.0)]
    [0.32, 0.17, 0.02]
  """
  done = jnp.asarray(done, jnp.float32)
  if decay == "cosine":
    return mean_ratio * (1 + jnp.cos(jnp.pi * done)) + _LEAST
  if decay == "line":
    return 2 * mean_ratio * (1 - done)
  return jnp.full_like(done, mean_ratio)


def class_weights(errors: Array, sharpness: float) -> Array:
  """How likely a word of each class is to be masked when its turn comes.

  The logistic function of how many standard deviations the errors of its class lie
  above the mean of all classes, times `sharpness`; one half for all at first.

  Args:
    errors: float [C].
    sharpness: what the stds are multiplied by.

  Example:
    >>> class_weights(jnp.array([2.0, 2.0, 2.0]), 2.0).tolist()
    [0.5, 0.5, 0.5]
  """
  std = errors.std(ddof=1)
  std = jnp.where(std == 0, 1e-4, std)
  return jax.nn.sigmoid(sharpness * (errors - errors.mean()) / std)


def time_variant_masking(
  *,
  num_steps: int,
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
    num_steps: the run's, over which the share of masked tokens falls.
    mask_ratio: the share around which it falls, from twice that or a little more.
    decay: along a `cosine` or a `line`; `none` keeps it.
    num_classes: how many classes of words the data has, 17 parts of speech; 0 masks
      tokens of all classes alike, and no scores are needed.
    momentum: of the running mean of each class's errors, a step.
    sharpness: what stds from the classes' mean error are multiplied by.
    of: what of a class is masked at once: `words`; or `tokens`, for texts whose words
      are cut into many.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if num_steps < 1:
    raise UserError(f"objective.num_steps={num_steps}: expected the run's, at least 1")
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
  words.check_units(of)
  encoder, fields = text_parts(
    mask="whole_words" if num_classes else "tokens",
    mask_ratio=highest,
    replaced=replaced,
    **text,
  )
  return TimeVariantMasking(
    model=MaskedLM(encoder=encoder),
    decay=decay,
    mean_ratio=mask_ratio,
    num_steps=num_steps,
    num_classes=num_classes,
    momentum=momentum,
    sharpness=sharpness,
    of=of,
    reads_score=num_classes > 0,
    **fields,
  )
