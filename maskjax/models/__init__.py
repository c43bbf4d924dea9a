"""Networks: (tokens, mask) to predictions. The only place that uses Linen."""

from maskjax.models.aligned import AlignedAutoencoder, AlignedEncoder, Projector
from maskjax.models.layers import Layers, encoder_layers
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
  "AlignedAutoencoder",
  "AlignedEncoder",
  "Classifier",
  "Decoder",
  "Layers",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "Projector",
  "Transformer",
  "VisionEncoder",
  "check_shape",
  "encoder_layers",
  "stack_blocks",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
