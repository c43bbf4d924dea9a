"""Networks of text."""

from maskjax.models.text.duplex import DuplexAutoencoder, EnhancedDecoder
from maskjax.models.text.encoder import (
  TEXT_SIZES,
  TextEncoder,
  attention_bias,
  text_encoder,
)
from maskjax.models.text.masked_lm import MaskedLM, VocabularyHead
from maskjax.models.text.token_detector import TokenDetector

__all__ = [
  "TEXT_SIZES",
  "DuplexAutoencoder",
  "EnhancedDecoder",
  "MaskedLM",
  "TextEncoder",
  "TokenDetector",
  "VocabularyHead",
  "attention_bias",
  "text_encoder",
]
