"""Weights of other libraries, there and back: safetensors only, never pickle."""

from maskjax.convert import safetensors, vit_mae

__all__ = ["safetensors", "vit_mae"]
