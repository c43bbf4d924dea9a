"""The answer to "Should you mask 15 % in masked language modeling?".

Masks 40 % of the tokens, since what more predictions teach outweighs what the context
loses; and all of them become mask tokens, since neither random nor unchanged ones help
(https://arxiv.org/abs/2202.08005, sections 3 and 5). Config: `configs/text/mask40.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.objectives.text import MaskedLanguageModel, TextKeywords
from maskjax.systems.system import System
from maskjax.systems.text.bert import bert

SYSTEM = System(
  name="mask40",
  family="text",
  paper="arXiv:2202.08005",
  config="configs/text/mask40.py",
  agrees_with="transformers BertForMaskedLM",
  differs=(
    "As many tokens are masked as BERT masks; fairseq rounds at random, and masks the "
    "tokens around documents as well.",
    "There are as many positions as a row has tokens, 128, not 512.",
  ),
)


def mask40(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.4,
  replaced: Sequence[float] = (1.0, 0.0),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes BERT with the paper's rates; see `maskjax.systems.bert` for the arguments.

  Example:
    >>> mask40(vocab_size=30522).masking.ratio
    0.4
  """
  text.setdefault("initialization", "normal")
  return bert(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
