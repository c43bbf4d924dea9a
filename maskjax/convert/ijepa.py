"""Converts `IJepaModel` of Hugging Face Transformers, I-JEPA's encoder.

Published weights have no predictor, so they are imported as a plain encoder, of the
objective `vit`. Exported are such encoders and those of runs of `ijepa`, whose computed
positions are written as a table.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax import systems
from maskjax.convert import encoders, layout, vit
from maskjax.convert.layout import Entry
from maskjax.tokens import sincos

MODEL_TYPE = "ijepa"
OBJECTIVE = "vit"
EXPORTS = ("ijepa",)

# Defaults of `IJepaConfig` for keys that `config.json` lacks.
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
    UserError: a config that the model here does not support, or tensors that do not
      fit it; names the key or the tensors.
  """
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed={"qkv_bias": True}
  )
  hidden_size = config["intermediate_size"]
  return (
    encoders.hyperparameters(MODEL_TYPE, config, hidden_size=hidden_size),
    encoders.to_params(_entries(config), tensors, prefix="ijepa."),
  )


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`; exports the encoder of a run of `ijepa`."""
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
  return config, encoders.to_tensors(_entries(config), params)


def _encoder_of(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts a run of `ijepa` to the objective `vit` with its encoder."""
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


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  width, count = config["hidden_size"], encoders.num_patches(config)
  return {
    "embeddings.position_embeddings": Entry(
      "encoder/positions", (1, count, width), encoders.TABLE
    ),
    **encoders.vit_entries(config),
  }
