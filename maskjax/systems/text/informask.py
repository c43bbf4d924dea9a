"""InforMask: unsupervised informative masking for language model pretraining.

Masks the tokens of which the visible ones say most, by their pointwise mutual
information. Twice it saves work: of all masks of a row only some are drawn, and the
best of these are used to find once how often each token of the vocabulary should be
masked; while it trains, each is then masked as often, by itself
(https://arxiv.org/abs/2210.11771, section 3). The rates are `informative_rates` of
`maskjax.data.statistics`. Config: `configs/text/informask.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.objectives.texts import TextKeywords
from maskjax.systems.system import System
from maskjax.systems.text.bert import MaskedLanguageModel, bert

SYSTEM = System(
  name="informask",
  family="text",
  paper="arXiv:2210.11771",
  config="configs/text/informask.py",
  agrees_with="equations in NumPy",
)


def informask(
  *,
  mask: str | Mapping[str, Any] = "by_rate",
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (1.0, 0.0),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes InforMask from hyperparameters.

  Args:
    mask: see `maskjax.systems.bert`.
    mask_ratio: share of a row's tokens that is masked at most, for which arrays have
      room; how many are, the rates of the data say.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  base = bert(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  return dataclasses.replace(base, reads_score=True)
