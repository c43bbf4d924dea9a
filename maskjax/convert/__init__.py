"""Weights of other libraries, there and back: safetensors only, never pickle."""

from maskjax.convert import (
  beit_mim,
  bert,
  clip,
  clip_vision_model,
  deberta_v2,
  dinov2,
  electra,
  ijepa,
  modernbert,
  roberta,
  safetensors,
  swin_mim,
  swinv2_mim,
  vit,
  vit_mae,
  vit_mim,
)

__all__ = [
  "beit_mim",
  "bert",
  "clip",
  "clip_vision_model",
  "deberta_v2",
  "dinov2",
  "electra",
  "ijepa",
  "modernbert",
  "roberta",
  "safetensors",
  "swin_mim",
  "swinv2_mim",
  "vit",
  "vit_mae",
  "vit_mim",
]
