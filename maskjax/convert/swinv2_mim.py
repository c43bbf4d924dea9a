"""Converts `Swinv2ForMaskedImageModeling` of Hugging Face Transformers, SimMIM."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import swin_mim
from maskjax.errors import UserError

MODEL_TYPE = "swinv2"
OBJECTIVE = "simmim"


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """As `maskjax.convert.swin_mim.from_hf`; pretrained window sizes must be 0."""
  before = config.get("pretrained_window_sizes")
  if before and any(before):
    raise UserError(f"pretrained_window_sizes={before}: expected zeros")
  return swin_mim.read(MODEL_TYPE, config, tensors)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`."""
  return swin_mim.write(MODEL_TYPE, hyperparameters, params)
