"""Networks: (tokens, mask) to predictions. The only place that uses Linen."""

from maskjax.models.cnn import CNN_SIZES, ConvEncoder, conv_encoder, is_cnn
from maskjax.models.mae import Decoder, MaskedAutoencoder
from maskjax.models.masked_vit import MaskedEncoder
from maskjax.models.multiscale import MultiscaleAutoencoder, RegionDecoder
from maskjax.models.swin import SWIN_SIZES, SwinEncoder, swin_encoder
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
  "CNN_SIZES",
  "SWIN_SIZES",
  "VIT_SIZES",
  "Classifier",
  "ConvEncoder",
  "Decoder",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "MultiscaleAutoencoder",
  "RegionDecoder",
  "SwinEncoder",
  "Transformer",
  "VisionEncoder",
  "check_shape",
  "conv_encoder",
  "is_cnn",
  "stack_blocks",
  "swin_encoder",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
