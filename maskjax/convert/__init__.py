"""Reads and writes weights in the layouts of other libraries.

Only safetensors: a pickle file could run code. Each module converts one model class of
Hugging Face Transformers in both directions, with `from_hf` and `to_hf`.
"""

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
