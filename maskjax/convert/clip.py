"""Converts the vision tower of `CLIPModel` of Hugging Face Transformers.

The text tower is not converted.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import clip_vision_model
from maskjax.errors import UserError

MODEL_TYPE = "clip"
OBJECTIVE = "vit"
OPTIONAL = clip_vision_model.OPTIONAL


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `CLIPModel` into hyperparameters and parameters of its vision tower.

  See `maskjax.convert.clip_vision_model.from_hf`.
  """
  vision = config.get("vision_config")
  if not isinstance(vision, Mapping):
    raise UserError(f"vision_config={vision!r}: expected that of CLIP's vision tower")
  vision = {**vision, "model_type": clip_vision_model.MODEL_TYPE}
  # Which stands outside of the tower's config.
  vision["projection_dim"] = config.get("projection_dim", 512)
  return clip_vision_model.from_hf(vision, tensors)


# The vision tower alone is a `CLIPVisionModel`.
to_hf = clip_vision_model.to_hf
