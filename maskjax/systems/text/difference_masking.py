"""Difference-Masking: choosing what to mask in continued pretraining.

Continues training on the texts of a domain, and masks what makes these differ from
what the model was trained on before: anchors are words that the domain has and the
other corpus has not, and the more similar a word is to its nearest anchor, the more
often it is masked (https://arxiv.org/abs/2305.14577, section 3). The similarity is
`anchor_similarity` of `maskjax.data.statistics`. Config:
`configs/text/difference_masking.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.masking.text_policy import text_masking
from maskjax.models.text import MaskedLM
from maskjax.objectives.text import MaskedLanguageModel, TextKeywords, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="difference_masking",
  family="text",
  paper="arXiv:2305.14577",
  config="configs/text/difference_masking.py",
  agrees_with="equations in NumPy",
)


def difference_masking(
  *,
  vocab_size: int,
  mask: str | Mapping[str, Any] = "by_similarity",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes Difference-Masking from hyperparameters.

  Args:
    vocab_size: number of tokens.
    mask: see `maskjax.systems.bert`.
    mask_ratio: see `maskjax.systems.bert`.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  encoder, rows = text_parts(vocab_size=vocab_size, needs_score=True, **text)
  return MaskedLanguageModel(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
  )
