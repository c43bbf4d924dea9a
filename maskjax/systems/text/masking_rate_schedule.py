"""Dynamic masking rate schedules for masked language models.

Masks 30 % of the tokens at first and 15 % in the end, along a line over the run, since
models learn from both: much to predict while they know little, and much to predict it
from when they know more (https://arxiv.org/abs/2305.15096, section 2). All else is
BERT's. Config: `configs/text/masking_rate_schedule.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch
from maskjax.objectives.texts import TextKeywords, TextObjective, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="masking_rate_schedule",
  family="text",
  paper="arXiv:2305.15096",
  config="configs/text/masking_rate_schedule.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduledMasking(TextObjective):
  """Masked language modeling under a schedule; `masking_rate_schedule` makes it.

  `extra` holds the `step`. `mask_ratio` is the highest one, for which all arrays have
  room.

  Attributes:
    mask_ratios: at the first and at the last step; in between along a line.
    num_steps: the last step.
  """

  mask_ratios: tuple[float, float]
  num_steps: int

  def first_extra(self) -> Any:
    """The first step."""
    return {"step": jnp.int32(0)}

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """The schedule goes on."""
    del params, extra, sums
    return {"step": step + 1}

  def ratio(self, step: Array) -> Array:
    """The share of the tokens that a step masks."""
    first, last = self.mask_ratios
    return first + (last - first) * jnp.clip(step / self.num_steps, 0, 1)

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of as many masked tokens as this step asks for."""
    mask = self.draw(
      self.sampler,
      self.ratio(extra["step"]),
      batch,
      key,
      highest=max(self.mask_ratios),
    )
    return self.masked_token_loss(mask, params, batch, key)


def masking_rate_schedule(
  *,
  num_steps: int,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: Sequence[float] = (0.3, 0.15),
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> ScheduledMasking:
  """Makes masked language modeling whose ratio changes, from hyperparameters.

  Args:
    num_steps: the run's, over which `mask_ratio` changes.
    mask: see `maskjax.systems.bert`.
    mask_ratio: share of a row's tokens that is masked, at first and in the end.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if num_steps < 1:
    raise UserError(f"objective.num_steps={num_steps}: expected the run's, at least 1")
  if len(mask_ratio) != 2 or not all(0 < ratio < 1 for ratio in mask_ratio):
    raise UserError(
      f"mask_ratio={tuple(mask_ratio)}: expected two numbers between 0 and 1, the "
      "share at first and in the end"
    )
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=max(mask_ratio),
    replaced=replaced,
    **text,
  )
  return ScheduledMasking(
    model=MaskedLM(encoder=encoder),
    mask_ratios=(mask_ratio[0], mask_ratio[1]),
    num_steps=num_steps,
    **fields,
  )
