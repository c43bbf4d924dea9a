"""Weights of other libraries, there and back: safetensors only, never pickle."""

from maskjax.convert import clip, clip_vision_model, dinov2, safetensors, vit, vit_mae

__all__ = ["clip", "clip_vision_model", "dinov2", "safetensors", "vit", "vit_mae"]
