"""Weights of other libraries, there and back: safetensors only, never pickle."""

from maskjax.convert import (
  beit_mim,
  clip,
  clip_vision_model,
  dinov2,
  ijepa,
  safetensors,
  swin_mim,
  swinv2_mim,
  vit,
  vit_mae,
  vit_mim,
)

__all__ = [
  "beit_mim",
  "clip",
  "clip_vision_model",
  "dinov2",
  "ijepa",
  "safetensors",
  "swin_mim",
  "swinv2_mim",
  "vit",
  "vit_mae",
  "vit_mim",
]
