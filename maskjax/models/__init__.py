"""Networks: (tokens, mask) to predictions, in Linen."""

from maskjax.models.aligned import AlignedAutoencoder, AlignedEncoder, Projector
from maskjax.models.attention import last_attention
from maskjax.models.beit import CodePredictor
from maskjax.models.block_options import BlockOptions
from maskjax.models.cae import ContextAutoencoder
from maskjax.models.capi import ClusterPredictor, Clusters, Predictor
from maskjax.models.ccvit import TokensAndPixels
from maskjax.models.checks import check_dtype, check_rotary, check_shape
from maskjax.models.cnn import CNN_SIZES, ConvEncoder, conv_encoder, is_cnn
from maskjax.models.decoder import Decoder, decoder_of
from maskjax.models.jepa import (
  AggregationHead,
  DiscriminativeJointEmbedding,
  JointEmbedding,
)
from maskjax.models.latent_mim import CueDecoder, LatentMaskedModel, NormedProjector
from maskjax.models.layers import Layers, encoder_layers
from maskjax.models.mae import MaskedAutoencoder, MiningAutoencoder
from maskjax.models.masked_vit import MaskedEncoder
from maskjax.models.prototypes import (
  CosineHead,
  DistilledEncoder,
  PrototypeHead,
  prototype_head,
)
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
  Classifier,
  Network,
  VisionEncoder,
  vit_encoder,
  vit_size,
)
from maskjax.models.vqkd import CodeAutoencoder

__all__ = [
  "CNN_SIZES",
  "SWIN_SIZES",
  "VIT_SIZES",
  "AggregationHead",
  "AlignedAutoencoder",
  "AlignedEncoder",
  "BlockOptions",
  "Change",
  "Classifier",
  "ClusterPredictor",
  "Clusters",
  "CodeAutoencoder",
  "CodePredictor",
  "ContextAutoencoder",
  "ConvEncoder",
  "CosineHead",
  "CueDecoder",
  "Decoder",
  "DiscriminativeJointEmbedding",
  "DistilledEncoder",
  "JointEmbedding",
  "LatentMaskedModel",
  "Layers",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "MiningAutoencoder",
  "Network",
  "NormedProjector",
  "Predictor",
  "Projector",
  "PrototypeHead",
  "SwinEncoder",
  "TokensAndPixels",
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
  "prototype_head",
  "stack_blocks",
  "swin_encoder",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
