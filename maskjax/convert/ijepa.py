"""I-JEPA's encoder, as `IJepaModel` of Hugging Face Transformers has it.

Published weights hold no predictor: what comes in is a plain encoder, of the objective
`vit`. What goes out may be such a one, or the encoder of a run of `ijepa`, whose fixed
positions are written as the table that they are there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax import systems
from maskjax.convert import encoders, layout, vit
from maskjax.convert.layout import Place
from maskjax.tokens import sincos

MODEL_TYPE = "ijepa"
OBJECTIVE = "vit"
EXPORTS = ("ijepa",)

# What `IJepaConfig` takes where its config.json is silent.
DEFAULTS = vit.DEFAULTS


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns an `IJepaModel` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, float32, float16 or bfloat16.

  Returns:
    Keyword arguments for `maskjax.objectives.vit`, and a tree of float32 arrays.

  Raises:
    UserError: a config or tensors that the model here cannot follow; names them.
  """
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed={"qkv_bias": True}
  )
  hidden_size = config["intermediate_size"]
  return (
    encoders.hyperparameters(MODEL_TYPE, config, hidden_size=hidden_size),
    encoders.to_params(_places(config), tensors, prefix="ijepa."),
  )


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`; of a run of `ijepa`, its encoder alone."""
  if "predictor" in params:
    hyperparameters, params = _encoder_of(hyperparameters, params)
  config = encoders.config_of(hyperparameters)
  ratio = hyperparameters.get("mlp_ratio", 4.0)
  config |= {
    "architectures": ["IJepaModel"],
    "intermediate_size": round(config["hidden_size"] * ratio),
    "model_type": MODEL_TYPE,
    "qkv_bias": True,
  }
  return config, encoders.to_tensors(_places(config), params)


def _encoder_of(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Of a run of `ijepa`, the encoder as the objective `vit` has it."""
  objective = systems.ijepa(**hyperparameters)
  encoder, patches = objective.model.encoder, objective.patches
  found = {
    "encoder_type": MODEL_TYPE,
    "image_size": patches.shape[:2],
    "channels": patches.channels,
    "patch_size": patches.size,
    "encoder": {k: getattr(encoder, k) for k in ("width", "depth", "heads")},
    "norm_epsilon": encoder.norm_epsilon,
    "mlp_ratio": encoder.options.mlp_ratio,
  }
  positions = sincos(encoder.grid, encoder.width)
  return found, {"encoder": {**params["encoder"], "positions": positions}}


def _places(config: Mapping[str, Any]) -> layout.Places:
  width, count = config["hidden_size"], encoders.num_patches(config)
  return {
    "embeddings.position_embeddings": Place(
      "encoder/positions", (1, count, width), encoders.TABLE
    ),
    **encoders.vit_places(config),
  }
