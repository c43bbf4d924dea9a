"""Converts `BeitForMaskedImageModeling` of Hugging Face Transformers, BEiT.

It has no blocks for patch aggregation, which BEiT v2 drops after pretraining: they are
not exported, and weights are imported with `head_depth=0`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import Entry
from maskjax.errors import UserError
from maskjax.models import vit_encoder
from maskjax.systems import beit_v2
from maskjax.tokens import grid_of

MODEL_TYPE = "beit"
OBJECTIVE = "beit_v2"

# Defaults of `BeitConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "drop_path_rate": 0.1,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "hidden_size": 768,
  "image_size": 224,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-12,
  "layer_scale_init_value": 0.1,
  "num_attention_heads": 12,
  "num_channels": 3,
  "num_hidden_layers": 12,
  "patch_size": 16,
  "use_absolute_position_embeddings": False,
  "use_mask_token": False,
  "use_mean_pooling": True,
  "use_relative_position_bias": False,
  "use_shared_relative_position_bias": False,
  "vocab_size": 8192,
}

# The only values of these keys that the model here supports.
FIXED: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "use_absolute_position_embeddings": False,
  "use_mask_token": True,
  "use_mean_pooling": True,  # two normalizations follow the last block without it
  "use_relative_position_bias": False,
  "use_shared_relative_position_bias": True,
}


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `BeitForMaskedImageModeling` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.

  Returns:
    Keyword arguments for `maskjax.systems.beit_v2` (all but those of masking and of the
    tokenizer), and the parameters of its model: a tree of float32 arrays with separate
    blocks.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it. Names the key or the tensors.
  """
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed=FIXED
  )
  if config["layer_scale_init_value"] <= 0:
    raise UserError(
      f"layer_scale_init_value={config['layer_scale_init_value']}: expected above 0"
    )
  height, width = config["image_size"]
  shape = {
    "image_size": height if height == width else (height, width),
    "patch_size": config["patch_size"],
    "encoder": {
      "width": config["hidden_size"],
      "depth": config["num_hidden_layers"],
      "heads": config["num_attention_heads"],
    },
  }
  # Refuses what does not fit together.
  grid = grid_of(shape["image_size"], shape["patch_size"])
  vit_encoder(grid=grid, encoder=shape["encoder"])
  hyperparameters = {
    **shape,
    "channels": config["num_channels"],
    "head_depth": 0,
    "layer_scale": config["layer_scale_init_value"],
    "drop_path": config["drop_path_rate"],
    "norm_epsilon": config["layer_norm_eps"],
    "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
  }
  return hyperparameters, layout.to_params(_entries(config), tensors)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.systems.beit_v2`. Those that do
      not shape the network are ignored.
    params: the parameters of its model, with separate or with scanned blocks; those of
      its aggregation are ignored.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  objective = beit_v2(**hyperparameters)
  encoder, patch = objective.model.encoder, layout.square(objective.patches.size)
  rows, columns = objective.patches.grid
  mlp_ratio = encoder.options.mlp_ratio
  config = {
    **DEFAULTS,
    **FIXED,
    "architectures": ["BeitForMaskedImageModeling"],
    "drop_path_rate": encoder.options.drop_path,
    "dtype": "float32",
    "hidden_size": encoder.width,
    "image_size": layout.one_or_two((patch * rows, patch * columns)),
    "intermediate_size": round(encoder.width * mlp_ratio),
    "layer_norm_eps": encoder.norm_epsilon,
    "layer_scale_init_value": encoder.options.layer_scale,
    "model_type": MODEL_TYPE,
    "num_attention_heads": encoder.heads,
    "num_channels": objective.patches.channels,
    "num_hidden_layers": encoder.depth,
    "patch_size": patch,
    "vocab_size": objective.model.num_codes,
  }
  kept = {name: part for name, part in params.items() if name != "aggregator"}
  return config, layout.to_tensors(_entries(config), kept)


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors."""
  width, depth = config["hidden_size"], config["num_hidden_layers"]
  patch, channels = config["patch_size"], config["num_channels"]
  rows, columns = (side // patch for side in layout.sides("", config["image_size"]))
  # One bias for each difference of two positions, and three of the class token.
  biases = (2 * rows - 1) * (2 * columns - 1) + 3
  token = (1, 1, width)
  scales = {
    f"beit.encoder.layer.{i}.lambda_{n}": Entry(
      f"encoder/transformer/block_{i}/{branch}_scale", (width,)
    )
    for i in range(depth)
    for n, branch in ((1, "attention"), (2, "mlp"))
  }
  return {
    "beit.embeddings.cls_token": Entry("encoder/cls", token),
    "beit.embeddings.mask_token": Entry("encoder/mask_token", token, layout.SQUEEZED),
    "beit.encoder.relative_position_bias.relative_position_bias_table": Entry(
      "encoder/relative/table", (biases, config["num_attention_heads"])
    ),
    **layout.patches(
      "beit.embeddings.patch_embeddings.projection",
      "encoder/embed",
      (width, channels, patch, patch),
    ),
    **layout.vit_blocks(
      "beit.encoder.layer",
      "encoder",
      width=width,
      hidden=config["intermediate_size"],
      depth=depth,
      key_bias=False,
    ),
    **scales,
    **layout.norm("layernorm", "norm", width),
    **layout.dense("lm_head", "head", (config["vocab_size"], width)),
  }
