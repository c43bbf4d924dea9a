"""MAE-LM: against the representation deficiency of masked language modeling.

An encoder that sees mask tokens spends dimensions on them that real tokens then lack.
So mask tokens are left out of it, and enter a shallow decoder: its input is the
features of real tokens and, at the masked positions, the embedding of the mask token;
to both it adds positions of its own (https://arxiv.org/abs/2302.02060, section 4).
Config: `configs/text/mae_lm.py`.
"""

from collections.abc import Mapping
from typing import Any, Unpack

from maskjax.errors import UserError
from maskjax.models.text import LateMaskLM
from maskjax.objectives.late_masking import LateMasking, late_masking
from maskjax.objectives.text import TextKeywords, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="mae_lm",
  family="text",
  paper="arXiv:2302.02060",
  config="configs/text/mae_lm.py",
  agrees_with="equations in NumPy",
  differs=(
    "As many tokens are masked as BERT masks; fairseq rounds at random, and masks the "
    "tokens around documents as well.",
    "Rows may hold several documents, which do not attend to each other; the authors' "
    "hold one.",
  ),
)


def mae_lm(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  decoder_depth: int = 4,
  decoder_dropout: float = 0.0,
  **text: Unpack[TextKeywords],
) -> LateMasking:
  """Makes MAE-LM from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked; all become mask tokens.
    decoder_depth: number of blocks of the decoder.
    decoder_dropout: as `dropout` and `attention_dropout`, of the decoder's blocks.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  if not 0 <= decoder_dropout < 1:
    raise UserError(
      f"decoder_dropout={decoder_dropout}: expected at least 0 and less than 1"
    )
  encoder, rows = text_parts(**text)
  model = LateMaskLM(
    encoder=encoder, depth=decoder_depth, begins_anew=True, dropout=decoder_dropout
  )
  return late_masking(
    model, rows, mask=mask, mask_ratio=mask_ratio, replaced=(1.0, 0.0)
  )
