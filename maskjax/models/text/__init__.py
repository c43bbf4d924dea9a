"""Networks of text."""

from maskjax.models.text.boundaries import BoundaryHead, SpanLM
from maskjax.models.text.encoder import (
  TEXT_SIZES,
  TextEncoder,
  attention_bias,
  text_encoder,
)
from maskjax.models.text.masked_lm import MaskedLM, VocabularyHead

__all__ = [
  "TEXT_SIZES",
  "BoundaryHead",
  "MaskedLM",
  "SpanLM",
  "TextEncoder",
  "VocabularyHead",
  "attention_bias",
  "text_encoder",
]
