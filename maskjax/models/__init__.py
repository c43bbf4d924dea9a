"""Networks: (tokens, mask) to predictions. The only place that uses Linen."""

from maskjax.models.attention import last_attention
from maskjax.models.distilled import DistilledEncoder, PrototypeHead, prototype_head
from maskjax.models.mae import Decoder, MaskedAutoencoder, MiningAutoencoder
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
  "Decoder",
  "DistilledEncoder",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "MiningAutoencoder",
  "PrototypeHead",
  "Transformer",
  "VisionEncoder",
  "check_shape",
  "last_attention",
  "prototype_head",
  "stack_blocks",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
