"""The vision tower of `CLIPModel` of Hugging Face Transformers; its text is left."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import clip_vision_model
from maskjax.errors import UserError

MODEL_TYPE = "clip"
OBJECTIVE = "vit"


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `CLIPModel` into the hyperparameters and parameters of its images' part.

  See `maskjax.convert.clip_vision_model`.
  """
  vision = config.get("vision_config")
  if not isinstance(vision, Mapping):
    raise UserError(f"vision_config={vision!r}: expected that of CLIP's vision tower")
  vision = {**vision, "model_type": clip_vision_model.MODEL_TYPE}
  return clip_vision_model.from_hf(vision, tensors)


# What was read of a whole CLIP is written as its vision tower.
to_hf = clip_vision_model.to_hf
