"""Networks: (tokens, mask) to predictions. The only place that uses Linen."""

from maskjax.models.mae import Decoder, MaskedAutoencoder, decoder_of
from maskjax.models.masked_vit import MaskedEncoder
from maskjax.models.multiscale import MultiscaleAutoencoder, RegionDecoder
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
  "Decoder",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "MultiscaleAutoencoder",
  "RegionDecoder",
  "Transformer",
  "VisionEncoder",
  "check_shape",
  "decoder_of",
  "stack_blocks",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
