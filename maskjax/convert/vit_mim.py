"""Converts `ViTForMaskedImageModeling` of Hugging Face Transformers, SimMIM on a ViT.

This ViT has learned positions, keys with a bias and no layer scale. The class token's
position embedding is added to the token here; exported weights have zeros there, and
can be imported again bit for bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import Entry
from maskjax.errors import UserError
from maskjax.systems import simmim

MODEL_TYPE = "vit"
OBJECTIVE = "simmim"

# Defaults of `ViTConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "encoder_stride": 16,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
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

# The only values of these keys that the model here supports.
FIXED: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "qkv_bias": True,
}

# The ViT of transformers, as hyperparameters of `simmim`.
OPTIONS: Mapping[str, Any] = {
  "positions": "learned",
  "layer_scale": None,
  "key_bias": True,
}

CLASS_TOKEN = "vit.embeddings.cls_token"
POSITIONS = "vit.embeddings.position_embeddings"


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `ViTForMaskedImageModeling` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.

  Returns:
    Keyword arguments for `maskjax.systems.simmim` (all but those of
    masking), and the parameters of its model: a tree of float32 arrays with separate
    blocks.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it. Names the key or the tensors.
  """
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed=FIXED
  )
  hyperparameters = {
    "encoder_type": MODEL_TYPE,
    "image_size": layout.square(config["image_size"], "image_size"),
    "channels": config["num_channels"],
    "patch_size": config["patch_size"],
    "encoder": {
      "width": config["hidden_size"],
      "depth": config["num_hidden_layers"],
      "heads": config["num_attention_heads"],
      **OPTIONS,
    },
    "norm_epsilon": config["layer_norm_eps"],
    "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
  }
  if config["encoder_stride"] != config["patch_size"]:
    raise UserError(
      f"encoder_stride={config['encoder_stride']}: expected patch_size="
      f"{config['patch_size']}"
    )
  simmim(**hyperparameters, mask_patch_size=config["patch_size"])
  found = layout.with_class_position(tensors, CLASS_TOKEN, POSITIONS)
  return hyperparameters, layout.to_params(_entries(config), found)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.systems.simmim`. Those that do
      not shape the network are ignored.
    params: the parameters of its model, with separate or with scanned blocks.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  objective = simmim(**hyperparameters)
  encoder = objective.model.encoder
  options = {
    "positions": encoder.positions,
    "layer_scale": encoder.options.layer_scale,
    "key_bias": encoder.options.key_bias,
  }
  for key, value in options.items():
    if value != OPTIONS[key]:
      raise UserError(
        f"encoder.{key}={value!r}: transformers takes {OPTIONS[key]!r} only"
      )
  patch = layout.square(objective.patches.size)
  mlp_ratio = encoder.options.mlp_ratio
  config = {
    **DEFAULTS,
    "architectures": ["ViTForMaskedImageModeling"],
    "dtype": "float32",
    "encoder_stride": patch,
    "hidden_size": encoder.width,
    "image_size": patch * layout.square(objective.patches.grid, "grid"),
    "intermediate_size": round(encoder.width * mlp_ratio),
    "layer_norm_eps": encoder.norm_epsilon,
    "model_type": MODEL_TYPE,
    "num_attention_heads": encoder.heads,
    "num_channels": objective.patches.channels,
    "num_hidden_layers": encoder.depth,
    "patch_size": patch,
  }
  tensors = layout.to_tensors(_entries(config), params)
  return config, layout.without_class_position(tensors, POSITIONS)


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors, after `layout.with_class_position`."""
  width, patch = config["hidden_size"], config["patch_size"]
  channels = config["num_channels"]
  side = layout.square(layout.sides("image_size", config["image_size"])) // patch
  return {
    CLASS_TOKEN: Entry("encoder/cls", (1, 1, width)),
    POSITIONS: Entry("encoder/positions", (1, side**2, width), layout.SQUEEZED),
    "vit.embeddings.mask_token": Entry(
      "encoder/mask_token", (1, 1, width), layout.SQUEEZED
    ),
    **layout.patches(
      "vit.embeddings.patch_embeddings.projection",
      "encoder/embed",
      (width, channels, patch, patch),
    ),
    **layout.vit_blocks(
      "vit.encoder.layer",
      "encoder",
      width=width,
      hidden=config["intermediate_size"],
      depth=config["num_hidden_layers"],
    ),
    **layout.norm("vit.layernorm", "encoder/norm", width),
    **layout.pixel_head(
      "decoder.0", "head", width=width, channels=channels, patch=patch
    ),
  }
