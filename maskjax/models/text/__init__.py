"""Networks of text."""

from maskjax.models.text.boundaries import BoundaryHead, SpanLM
from maskjax.models.text.causal_lm import CausalLM
from maskjax.models.text.duplex import DuplexAutoencoder, EnhancedDecoder
from maskjax.models.text.encoder import (
  TEXT_SIZES,
  TextEncoder,
  attention_bias,
  text_encoder,
)
from maskjax.models.text.expanded_lm import ExpandedLM
from maskjax.models.text.late_mask_lm import LateMaskLM
from maskjax.models.text.masked_lm import MaskedLM, VocabularyHead
from maskjax.models.text.refined_lm import RefinedLM
from maskjax.models.text.structformer import StructFormer
from maskjax.models.text.token_detector import TokenDetector

__all__ = [
  "TEXT_SIZES",
  "BoundaryHead",
  "CausalLM",
  "DuplexAutoencoder",
  "EnhancedDecoder",
  "ExpandedLM",
  "LateMaskLM",
  "MaskedLM",
  "RefinedLM",
  "SpanLM",
  "StructFormer",
  "TextEncoder",
  "TokenDetector",
  "VocabularyHead",
  "attention_bias",
  "text_encoder",
]
