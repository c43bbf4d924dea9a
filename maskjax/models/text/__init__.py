"""Networks of text."""

from maskjax.models.text.boundaries import BoundaryHead, SpanLM
from maskjax.models.text.duplex import DuplexAutoencoder, EnhancedDecoder
from maskjax.models.text.encoder import (
  TEXT_SIZES,
  TextEncoder,
  attention_bias,
  text_encoder,
)
from maskjax.models.text.expanded_lm import ExpandedLM
from maskjax.models.text.labels import TextClassifier, TokenClassifier
from maskjax.models.text.late_mask_lm import LateMaskLM
from maskjax.models.text.masked_lm import MaskedLM, VocabularyHead
from maskjax.models.text.ngram_lm import IdentityHead, NgramLM
from maskjax.models.text.structformer import StructFormer

__all__ = [
  "TEXT_SIZES",
  "BoundaryHead",
  "DuplexAutoencoder",
  "EnhancedDecoder",
  "ExpandedLM",
  "IdentityHead",
  "LateMaskLM",
  "MaskedLM",
  "NgramLM",
  "SpanLM",
  "StructFormer",
  "TextClassifier",
  "TextEncoder",
  "TokenClassifier",
  "VocabularyHead",
  "attention_bias",
  "text_encoder",
]
