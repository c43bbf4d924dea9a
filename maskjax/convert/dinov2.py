"""Converts `Dinov2Model` of Hugging Face Transformers, DINOv2's ViTs.

The giant size, whose blocks have gated MLPs (SwiGLU), is not supported.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import encoders, layout
from maskjax.convert.layout import Entry
from maskjax.errors import UserError

MODEL_TYPE = "dinov2"
OBJECTIVE = "vit"

# Defaults of `Dinov2Config` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "hidden_act": "gelu",
  "hidden_size": 768,
  "image_size": 224,
  "layer_norm_eps": 1e-6,
  "mlp_ratio": 4,
  "num_attention_heads": 12,
  "num_channels": 3,
  "num_hidden_layers": 12,
  "patch_size": 14,
  "qkv_bias": True,
  "use_swiglu_ffn": False,
}

# The only values of these keys that the model here supports.
FIXED: Mapping[str, Any] = {"qkv_bias": True, "use_swiglu_ffn": False}

NAMES: Mapping[str, str] = {
  **layout.VIT_NAMES,
  "mlp/up": "mlp.fc1",
  "mlp/down": "mlp.fc2",
  "attention_norm": "norm1",
  "mlp_norm": "norm2",
  "attention_scale": "layer_scale1.lambda1",
  "mlp_scale": "layer_scale2.lambda1",
}


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `Dinov2Model` into hyperparameters and parameters.

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
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed=FIXED
  )
  hidden_size = config["hidden_size"] * config["mlp_ratio"]
  return (
    encoders.hyperparameters(MODEL_TYPE, config, hidden_size=hidden_size),
    encoders.to_params(
      _entries(config), tensors, prefix="dinov2.", unused=("embeddings.mask_token",)
    ),
  )


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Raises:
    UserError: an `mlp_ratio` that is not a whole number.
  """
  ratio = hyperparameters.get("mlp_ratio", 4.0)
  if ratio != int(ratio):
    raise UserError(f"mlp_ratio={ratio}: transformers takes whole numbers only")
  config = {
    **encoders.config_of(hyperparameters),
    **FIXED,
    "architectures": ["Dinov2Model"],
    "mlp_ratio": int(ratio),
    "model_type": MODEL_TYPE,
    "use_mask_token": False,
  }
  return config, encoders.to_tensors(_entries(config), params)


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  width, count = config["hidden_size"], 1 + encoders.num_patches(config)
  return {
    "embeddings.cls_token": Entry("encoder/cls", (1, 1, width), encoders.TOKEN),
    "embeddings.position_embeddings": Entry(
      "encoder/positions", (1, count, width), encoders.TABLE
    ),
    **layout.patches(
      "embeddings.patch_embeddings.projection",
      "encoder/embed",
      encoders.patch_shape(config),
    ),
    **layout.vit_blocks(
      "encoder.layer",
      "encoder",
      width=width,
      hidden=width * config["mlp_ratio"],
      depth=config["num_hidden_layers"],
      names=NAMES,
    ),
    **layout.norm("layernorm", "encoder/norm", width),
  }
