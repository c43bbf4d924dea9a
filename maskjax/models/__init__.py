"""Networks: (tokens, mask) to predictions. The only place that uses Linen."""

from maskjax.models.ccvit import TokensAndPixels
from maskjax.models.croco import CrossViewAutoencoder
from maskjax.models.crossmae import CrossDecoder, CrossMaskedAutoencoder
from maskjax.models.mae import Decoder, MaskedAutoencoder
from maskjax.models.masked_vit import MaskedEncoder
from maskjax.models.transformer import Transformer, stack_blocks, unstack_blocks
from maskjax.models.vit import (
  VIT_SIZES,
  Classifier,
  VisionEncoder,
  check_shape,
  vit_encoder,
  vit_size,
)

__all__ = [
  "VIT_SIZES",
  "Classifier",
  "CrossDecoder",
  "CrossMaskedAutoencoder",
  "CrossViewAutoencoder",
  "Decoder",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "TokensAndPixels",
  "Transformer",
  "VisionEncoder",
  "check_shape",
  "stack_blocks",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
