"""BERT: pre-training of deep bidirectional transformers for language understanding.

Masks 15 % of the tokens, of which 80 % become mask tokens, 10 % random ones and 10 %
stay, and predicts what they were (https://arxiv.org/abs/1810.04805, section 3.1). Its
second task, whether two sentences follow each other, is left out, as in RoBERTa and all
later models (https://arxiv.org/abs/1907.11692). Config: `configs/text/bert.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.masking.text_policy import text_masking
from maskjax.models.text import MaskedLM
from maskjax.objectives.text import MaskedLanguageModel, TextKeywords, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="bert",
  family="text",
  paper="arXiv:1810.04805",
  config="configs/text/bert.py",
  agrees_with="transformers BertForMaskedLM, RobertaForMaskedLM, ModernBertForMaskedLM",
  differs=(
    "No next-sentence prediction, as in RoBERTa.",
    "All rows are of 512 tokens; BERT's first 900,000 steps are of 128.",
    "GELU is exact; the authors' code approximates it by a hyperbolic tangent.",
    "No special token is drawn in place of a masked one.",
    "roberta: as many tokens are masked as BERT masks; fairseq rounds at random, and "
    "masks the tokens around documents as well.",
    "modernbert: the share of a row is masked exactly; the authors mask each token by "
    "itself.",
    "modernbert: the warm-up of the batch leaves out rows of whole batches, and that "
    "of the learning rate is linear in steps, not in tokens.",
    "modernbert: the stages of longer rows that follow have no setting.",
  ),
)


def bert(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes BERT from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.

  Example:
    >>> bert(vocab_size=30522, mask_id=103).masking.ids.mask
    103
  """
  text.setdefault("initialization", "bert")
  encoder, rows = text_parts(**text)
  return MaskedLanguageModel(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
  )
