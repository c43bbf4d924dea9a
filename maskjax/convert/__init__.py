"""Weights of other libraries, there and back: safetensors only, never pickle."""

from maskjax.convert import (
  beit_mim,
  safetensors,
  swin_mim,
  swinv2_mim,
  vit_mae,
  vit_mim,
)

__all__ = [
  "beit_mim",
  "safetensors",
  "swin_mim",
  "swinv2_mim",
  "vit_mae",
  "vit_mim",
]
