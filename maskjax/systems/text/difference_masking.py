"""Difference-Masking: choosing what to mask in continued pretraining.

Goes on training a model on the texts of a domain, and masks what makes these differ
from what it was trained on before: anchors are the words that the domain has and the
other corpus has not, and the more a word is like the nearest anchor, the more often it
is masked (https://arxiv.org/abs/2305.14577, section 3). How like it is, says
`anchor_similarity` of `maskjax.data.statistics`. Config:
`configs/text/difference_masking.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.objectives.texts import TextKeywords
from maskjax.systems.system import System
from maskjax.systems.text.bert import MaskedLanguageModel, bert

SYSTEM = System(
  name="difference_masking",
  family="text",
  paper="arXiv:2305.14577",
  config="configs/text/difference_masking.py",
  agrees_with="equations in NumPy",
)


def difference_masking(
  *,
  mask: str | Mapping[str, Any] = "by_similarity",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes Difference-Masking from hyperparameters.

  Args:
    mask: see `maskjax.systems.bert`.
    mask_ratio: see `maskjax.systems.bert`.
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
