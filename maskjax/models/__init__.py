"""Networks: (tokens, mask) to predictions, in Linen."""

from maskjax.models.attention import last_attention
from maskjax.models.block_options import BlockOptions
from maskjax.models.checks import check_dtype, check_rotary, check_shape
from maskjax.models.classifier import Classifier
from maskjax.models.cnn import CNN_SIZES, ConvEncoder, conv_encoder, is_cnn
from maskjax.models.decoder import Decoder, decoder_of
from maskjax.models.joint_embedding import JointEmbedding
from maskjax.models.layers import Layers, encoder_layers
from maskjax.models.mae import MaskedAutoencoder
from maskjax.models.masked_vit import MaskedEncoder
from maskjax.models.prototypes import CosineHead
from maskjax.models.swin import SWIN_SIZES, SwinEncoder, swin_encoder
from maskjax.models.transformer import (
  Change,
  Transformer,
  blocks_like,
  norm_like,
  stack_blocks,
  unstack_blocks,
)
from maskjax.models.vit import (
  VIT_SIZES,
  Network,
  VisionEncoder,
  vit_encoder,
  vit_size,
)

__all__ = [
  "CNN_SIZES",
  "SWIN_SIZES",
  "VIT_SIZES",
  "BlockOptions",
  "Change",
  "Classifier",
  "ConvEncoder",
  "CosineHead",
  "Decoder",
  "JointEmbedding",
  "Layers",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "Network",
  "SwinEncoder",
  "Transformer",
  "VisionEncoder",
  "blocks_like",
  "check_dtype",
  "check_rotary",
  "check_shape",
  "conv_encoder",
  "decoder_of",
  "encoder_layers",
  "is_cnn",
  "last_attention",
  "norm_like",
  "stack_blocks",
  "swin_encoder",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
