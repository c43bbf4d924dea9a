"""BERT: pre-training of deep bidirectional transformers for language understanding.

Masks 15 % of the tokens, of which 80 % become mask tokens, 10 % random ones and 10 %
stay, and predicts what they were (https://arxiv.org/abs/1810.04805, section 3.1). Its
second objective, whether two sentences follow each other, is left out, as RoBERTa and all
later ones do (https://arxiv.org/abs/1907.11692). Config: `configs/text/bert.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from jax import Array

from maskjax.losses import Loss
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch
from maskjax.objectives.texts import TextKeywords, TextObjective, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="bert",
  family="text",
  paper="arXiv:1810.04805",
  config="configs/text/bert.py",
  agrees_with="transformers BertForMaskedLM, RobertaForMaskedLM, ModernBertForMaskedLM",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(TextObjective):
  """Masked language modeling; `bert` makes it from hyperparameters."""

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of the masked tokens."""
    del extra
    return self.masked_token_loss(self.mask(batch, key), params, batch, key)


def bert(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes masked language modeling from hyperparameters; the defaults are BERT's.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> bert(vocab_size=30522, mask_id=103).max_masked(0.15, 512)
    77
  """
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  return MaskedLanguageModel(model=MaskedLM(encoder=encoder), **fields)
