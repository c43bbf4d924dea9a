"""Weights of other libraries, there and back: safetensors only, never pickle."""

from maskjax.convert import safetensors, swin_mim, swinv2_mim, vit_mae, vit_mim

__all__ = ["safetensors", "swin_mim", "swinv2_mim", "vit_mae", "vit_mim"]
