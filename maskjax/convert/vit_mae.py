"""Converts `ViTMAEForPreTraining` of Hugging Face Transformers, MAE.

Dense kernels are transposed, and the convolution that embeds patches becomes a dense
kernel on patches. The sine-cosine position tables, which transformers stores, are
computed here. Importing and exporting changes no bit of float32 weights.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import Entry
from maskjax.errors import UserError
from maskjax.systems import mae
from maskjax.tokens import grid_of, sincos
from maskjax.tokens.patches import per_side

MODEL_TYPE = "vit_mae"
OBJECTIVE = "mae"

# Defaults of `ViTMAEConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "decoder_hidden_size": 512,
  "decoder_intermediate_size": 2048,
  "decoder_num_attention_heads": 16,
  "decoder_num_hidden_layers": 8,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "hidden_size": 768,
  "image_size": 224,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-12,
  "mask_ratio": 0.75,
  "norm_pix_loss": False,
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


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `ViTMAEForPreTraining` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, float32, or float16 or bfloat16, which become
      float32 without loss. The decoder's blocks may be called `decoder_layers`
      or, as transformers 5 writes them, `decoder_encoder.layer`.

  Returns:
    Keyword arguments for `maskjax.systems.mae`, and the parameters of its
    model: a tree of float32 arrays with separate blocks.

  Raises:
    UserError: a config that the model here does not support; tensors that are missing,
      unknown, misshapen or of another type; position tables that are not the
      sine-cosine ones. Names the key or the tensors.
  """
  config = _checked(config)
  height, width = config["image_size"]
  mlp_ratio = config["intermediate_size"] / config["hidden_size"]
  hyperparameters = {
    "image_size": height if height == width else (height, width),
    "channels": config["num_channels"],
    "patch_size": config["patch_size"],
    "encoder": {
      "width": config["hidden_size"],
      "depth": config["num_hidden_layers"],
      "heads": config["num_attention_heads"],
    },
    "decoder": {
      "width": config["decoder_hidden_size"],
      "depth": config["decoder_num_hidden_layers"],
      "heads": config["decoder_num_attention_heads"],
    },
    "mask_ratio": config["mask_ratio"],
    "norm_pix_loss": config["norm_pix_loss"],
    "norm_epsilon": config["layer_norm_eps"],
    "mlp_ratio": mlp_ratio,
  }
  mae(**hyperparameters)  # raises if they do not fit together
  if not any(name.startswith("decoder.") for name in tensors):
    raise UserError(
      "the decoder is missing: expected the tensors of a ViTMAEForPreTraining, "
      f"found {len(tensors)} tensors, none of them 'decoder.*'"
    )
  found = {
    name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers."): tensor
    for name, tensor in tensors.items()
  }
  params = layout.to_params(_entries(config), found, tables=_positions(config))
  return hyperparameters, params


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.systems.mae`. Those that do
      not shape the network are ignored: `mask`, `dtype`, `scan` and `remat`.
    params: the parameters of its model, with separate or with scanned blocks.

  Returns:
    The content of `config.json`, and the tensors by name. transformers opens
    them where the number of patches is a perfect square.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that
      are not those of the hyperparameters. Names the key or the arrays.
  """
  objective = mae(**hyperparameters)
  encoder, decoder = objective.model.encoder, objective.model.decoder
  patch, (rows, columns) = layout.square(objective.patches.size), objective.patches.grid
  mlp_ratio = encoder.options.mlp_ratio
  config = {
    **DEFAULTS,
    "architectures": ["ViTMAEForPreTraining"],
    "decoder_hidden_size": decoder.width,
    "decoder_intermediate_size": round(decoder.width * mlp_ratio),
    "decoder_num_attention_heads": decoder.heads,
    "decoder_num_hidden_layers": decoder.depth,
    "dtype": "float32",
    "hidden_size": encoder.width,
    "image_size": layout.one_or_two((patch * rows, patch * columns)),
    "intermediate_size": round(encoder.width * mlp_ratio),
    "layer_norm_eps": encoder.norm_epsilon,
    "mask_ratio": hyperparameters.get("mask_ratio", DEFAULTS["mask_ratio"]),
    "model_type": MODEL_TYPE,
    "norm_pix_loss": hyperparameters.get("norm_pix_loss", True),
    "num_attention_heads": encoder.heads,
    "num_channels": objective.patches.channels,
    "num_hidden_layers": encoder.depth,
    "patch_size": patch,
  }
  return config, layout.to_tensors(_entries(config), params) | _positions(config)


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
  """Checks a `config.json`, see `layout.check_config`."""
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed=FIXED
  )
  ratio = config["intermediate_size"] / config["hidden_size"]
  decoder_hidden = round(config["decoder_hidden_size"] * ratio)
  if config["decoder_intermediate_size"] != decoder_hidden:
    raise UserError(
      f"decoder_intermediate_size={config['decoder_intermediate_size']}: expected "
      f"{decoder_hidden}, since encoder and decoder share one mlp_ratio "
      f"(intermediate_size / hidden_size = {ratio:g})"
    )
  return config


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors but the position tables."""
  width, decoder_width = config["hidden_size"], config["decoder_hidden_size"]
  patch, channels = config["patch_size"], config["num_channels"]
  patch_dim = channels * patch**2

  def blocks(prefix: str, theirs: str, ours: str) -> layout.Entries:
    return layout.vit_blocks(
      theirs,
      ours,
      width=config[f"{prefix}hidden_size"],
      hidden=config[f"{prefix}intermediate_size"],
      depth=config[f"{prefix}num_hidden_layers"],
    )

  return {
    "vit.embeddings.cls_token": Entry("encoder/cls", (1, 1, width)),
    "decoder.mask_token": Entry("decoder/mask_token", (1, 1, decoder_width)),
    **layout.patches(
      "vit.embeddings.patch_embeddings.projection",
      "encoder/embed",
      (width, channels, patch, patch),
    ),
    **blocks("", "vit.encoder.layer", "encoder"),
    **layout.norm("vit.layernorm", "encoder/norm", width),
    **layout.dense("decoder.decoder_embed", "decoder/embed", (decoder_width, width)),
    **blocks("decoder_", "decoder.decoder_layers", "decoder"),
    **layout.norm("decoder.decoder_norm", "decoder/norm", decoder_width),
    **layout.dense("decoder.decoder_pred", "decoder/head", (patch_dim, decoder_width)),
  }


def _positions(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The position tables [1, 1 + N, D], with 0 for the class token."""
  grid = grid_of(per_side(config["image_size"]), config["patch_size"])
  return {
    name: np.pad(sincos(grid, config[key]), ((1, 0), (0, 0)))[None]
    for name, key in (
      ("vit.embeddings.position_embeddings", "hidden_size"),
      ("decoder.decoder_pos_embed", "decoder_hidden_size"),
    )
  }
