"""Converts `ViTModel` of Hugging Face Transformers, for example DINO's ViTs.

The pooler and the heads of classifiers are not converted.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import encoders, layout
from maskjax.convert.layout import Entry

MODEL_TYPE = "vit"
OBJECTIVE = "vit"

# Defaults of `ViTConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "hidden_act": "gelu",
  "hidden_size": 768,
  "image_size": 224,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-12,
  "num_attention_heads": 12,
  "num_channels": 3,
  "num_hidden_layers": 12,
  "patch_size": 16,
  "qkv_bias": True,
}


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `ViTModel` into hyperparameters and parameters.

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
    encoders.to_params(
      _entries(config),
      tensors,
      prefix="vit.",
      unused=("pooler.dense.weight", "pooler.dense.bias"),
    ),
  )


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`, without a pooler, which transformers initializes."""
  config = encoders.config_of(hyperparameters)
  ratio = hyperparameters.get("mlp_ratio", 4.0)
  config |= {
    "architectures": ["ViTModel"],
    "intermediate_size": round(config["hidden_size"] * ratio),
    "model_type": MODEL_TYPE,
    "qkv_bias": True,
  }
  return config, encoders.to_tensors(_entries(config), params)


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  width, count = config["hidden_size"], 1 + encoders.num_patches(config)
  return {
    "embeddings.cls_token": Entry("encoder/cls", (1, 1, width), encoders.TOKEN),
    "embeddings.position_embeddings": Entry(
      "encoder/positions", (1, count, width), encoders.TABLE
    ),
    **encoders.vit_entries(config),
  }
