"""Dynamic masking rate schedules for masked language models.

Masks 30 % of the tokens at first and 15 % in the end, along a line over the run, since
models learn from both: much to predict while they know little, and much to predict it
from when they know more (https://arxiv.org/abs/2305.15096, section 2). All else is
BERT's. Config: `configs/text/masking_rate_schedule.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax import schedules
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking.text_policy import text_masking
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.text import MaskedTextObjective, TextKeywords, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="masking_rate_schedule",
  family="text",
  paper="arXiv:2305.15096",
  config="configs/text/masking_rate_schedule.py",
  agrees_with="equations in NumPy",
  differs=(
    "The share of a row is masked exactly; the authors mask each token by itself.",
    "Its data are what `maskjax pack` wrote, not C4.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingRateSchedule(MaskedTextObjective):
  """Masked language modeling under a schedule; `masking_rate_schedule` makes it.

  Attributes:
    mask_ratios: at the first and at the last step; in between along a line.
  """

  mask_ratios: tuple[float, float]

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of as many masked tokens as this step masks."""
    mask = self.masking.draw(
      batch,
      step.key,
      ratio=schedules.linear(*self.mask_ratios, step.progress),
      highest=max(self.mask_ratios),
    )
    return self.masked_token_loss(variables, batch, step, mask)


def masking_rate_schedule(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: Sequence[float] = (0.3, 0.15),
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> MaskingRateSchedule:
  """Makes masked language modeling whose ratio changes, from hyperparameters.

  Args:
    mask: see `maskjax.systems.bert`.
    mask_ratio: share of a row's tokens that is masked, at first and in the end.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  if len(mask_ratio) != 2 or not all(0 < ratio < 1 for ratio in mask_ratio):
    raise UserError(
      f"mask_ratio={tuple(mask_ratio)}: expected two numbers between 0 and 1, the "
      "share at first and in the end"
    )
  first, last = mask_ratio
  encoder, rows = text_parts(**text)
  return MaskingRateSchedule(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(
      rows.ids, mask=mask, mask_ratio=max(mask_ratio), replaced=replaced
    ),
    mask_ratios=(first, last),
  )
