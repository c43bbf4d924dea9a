"""Networks of text."""

from maskjax.models.text.encoder import (
  TEXT_SIZES,
  TextEncoder,
  attention_bias,
  text_encoder,
)
from maskjax.models.text.labels import TextClassifier, TokenClassifier
from maskjax.models.text.late_mask_lm import LateMaskLM
from maskjax.models.text.masked_lm import MaskedLM, VocabularyHead

__all__ = [
  "TEXT_SIZES",
  "LateMaskLM",
  "MaskedLM",
  "TextClassifier",
  "TextEncoder",
  "TokenClassifier",
  "VocabularyHead",
  "attention_bias",
  "text_encoder",
]
