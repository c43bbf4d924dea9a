"""Networks: (tokens, mask) to predictions. The only place that uses Linen."""

from maskjax.models.capi import ClusterPredictor, Clusters, CosineHead, Predictor
from maskjax.models.jepa import (
  AggregationHead,
  DiscriminativeJointEmbedding,
  JointEmbedding,
)
from maskjax.models.latent_mim import CueDecoder, LatentMaskedModel, Projector
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
  "AggregationHead",
  "Classifier",
  "ClusterPredictor",
  "Clusters",
  "CosineHead",
  "CueDecoder",
  "Decoder",
  "DiscriminativeJointEmbedding",
  "JointEmbedding",
  "LatentMaskedModel",
  "MaskedAutoencoder",
  "MaskedEncoder",
  "Predictor",
  "Projector",
  "Transformer",
  "VisionEncoder",
  "check_shape",
  "stack_blocks",
  "unstack_blocks",
  "vit_encoder",
  "vit_size",
]
