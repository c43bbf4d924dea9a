"""3ML: mask more and mask later.

Masks half of the tokens, and leaves those that became mask tokens out of the encoder,
whose input is shorter by them: they enter two further blocks, where they gather from
the others what stood there. Masked tokens that are random or stay are seen by the
encoder (https://arxiv.org/abs/2211.04898, figure 2, self-attention alone). Config:
`configs/text/three_ml.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.models.text import LateMaskLM
from maskjax.objectives.late_masking import LateMasking, late_masking
from maskjax.objectives.text import TextKeywords, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="three_ml",
  family="text",
  paper="arXiv:2211.04898",
  config="configs/text/three_ml.py",
  agrees_with="equations in NumPy",
  differs=(
    "The authors have not released code; all is from the paper, and the recipe that of "
    "mask40, on which they build.",
    "Of each row the same share of the masked tokens become mask tokens, so that the "
    "encoder drops equally many of each.",
    "As many tokens are masked as BERT masks; fairseq rounds at random, and masks the "
    "tokens around documents as well.",
  ),
)


def three_ml(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.5,
  replaced: Sequence[float] = (0.8, 0.1),
  decoder_depth: int = 2,
  **text: Unpack[TextKeywords],
) -> LateMasking:
  """Makes 3ML from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones; the
      latter, and those that stay, are seen by the encoder.
    decoder_depth: number of blocks after the encoder, which mask tokens enter.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  encoder, rows = text_parts(**text)
  return late_masking(
    LateMaskLM(encoder=encoder, depth=decoder_depth),
    rows,
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
  )
