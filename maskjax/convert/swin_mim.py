"""Converts `SwinForMaskedImageModeling` of Hugging Face Transformers, SimMIM on Swin.

Swin v2, see `maskjax.convert.swinv2_mim`, has other names where its network differs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import Entry
from maskjax.errors import UserError
from maskjax.systems import simmim

MODEL_TYPE = "swin"
OBJECTIVE = "simmim"

# Defaults of `SwinConfig` and `Swinv2Config` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "depths": (2, 2, 6, 2),
  "embed_dim": 96,
  "encoder_stride": 32,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "image_size": 224,
  "layer_norm_eps": 1e-5,
  "mlp_ratio": 4.0,
  "num_channels": 3,
  "num_heads": (3, 6, 12, 24),
  "patch_size": 4,
  "qkv_bias": True,
  "use_absolute_embeddings": False,
  "window_size": 7,
}

# The only values of these keys that the model here supports. Some of the normalizations
# in transformers have this epsilon and ignore `layer_norm_eps`.
FIXED: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "layer_norm_eps": 1e-5,
  "qkv_bias": True,
  "use_absolute_embeddings": False,
}

# The last parts of names of tensors that older files hold, computed from the window.
COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask")


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `SwinForMaskedImageModeling` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.

  Returns:
    Keyword arguments for `maskjax.systems.simmim` (all but those of
    masking), and the parameters of its model: a tree of float32 arrays.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it. Names the key or the tensors.
  """
  return read(MODEL_TYPE, config, tensors)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.systems.simmim`. Those that do
      not shape the network are ignored.
    params: the parameters of its model.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  return write(MODEL_TYPE, hyperparameters, params)


def read(
  model_type: str, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """As `from_hf`, for `swin` or `swinv2`."""
  config = layout.check_config(
    config, model_type=model_type, defaults=DEFAULTS, fixed=FIXED
  )
  hyperparameters = {
    "encoder_type": model_type,
    "image_size": layout.square(config["image_size"], "image_size"),
    "channels": config["num_channels"],
    "patch_size": config["patch_size"],
    "encoder": {
      "width": config["embed_dim"],
      "depths": tuple(config["depths"]),
      "heads": tuple(config["num_heads"]),
      "window": config["window_size"],
    },
    "norm_epsilon": config["layer_norm_eps"],
    "mlp_ratio": config["mlp_ratio"],
  }
  objective = simmim(**hyperparameters, mask_patch_size=config["patch_size"])
  stride = config["patch_size"] * objective.model.stride
  if config["encoder_stride"] != stride:
    raise UserError(
      f"encoder_stride={config['encoder_stride']}: expected {stride}, the side of the "
      "pixels of a token of the last stage"
    )
  entries = _entries(model_type, config)
  kept = {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in COMPUTED}
  return hyperparameters, layout.to_params(entries, kept)


def write(
  model_type: str, hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """As `to_hf`, for `swin` or `swinv2`."""
  objective = simmim(**hyperparameters)
  encoder, patch = objective.model.encoder, layout.square(objective.patches.size)
  if encoder.norm_every:
    raise UserError(
      f"encoder.norm_every={encoder.norm_every}: transformers has no such norms"
    )
  config = {
    **DEFAULTS,
    "architectures": [f"{model_type.capitalize()}ForMaskedImageModeling"],
    "depths": list(encoder.depths),
    "dtype": "float32",
    "embed_dim": encoder.width,
    "encoder_stride": patch * encoder.stride,
    "image_size": patch * layout.square(objective.patches.grid, "grid"),
    "layer_norm_eps": encoder.norm_epsilon,
    "mlp_ratio": encoder.options.mlp_ratio,
    "model_type": model_type,
    "num_channels": objective.patches.channels,
    "num_heads": list(encoder.heads),
    "patch_size": patch,
    "window_size": encoder.window,
  }
  layout.check_config(config, model_type=model_type, defaults=DEFAULTS, fixed=FIXED)
  return config, layout.to_tensors(_entries(model_type, config), params)


def _entries(model_type: str, config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors."""
  width, patch = config["embed_dim"], config["patch_size"]
  channels, depths = config["num_channels"], config["depths"]
  embeddings = f"{model_type}.embeddings"
  entries = {
    f"{embeddings}.mask_token": Entry(
      "encoder/mask_token", (1, 1, width), layout.SQUEEZED
    ),
    **layout.patches(
      f"{embeddings}.patch_embeddings.projection",
      "encoder/embed",
      (width, channels, patch, patch),
    ),
    **layout.norm(f"{embeddings}.norm", "encoder/embed_norm", width),
  }
  second = model_type == "swinv2"
  for stage, (depth, heads) in enumerate(zip(depths, config["num_heads"], strict=True)):
    theirs = f"{model_type}.encoder.layers.{stage}"
    if stage:
      merging, ours = f"{model_type}.encoder.layers.{stage - 1}", f"merging_{stage}"
      entries |= layout.dense(
        f"{merging}.downsample.reduction",
        f"encoder/{ours}/dense",
        (2 * width, 4 * width),
        bias=False,
      )
      width *= 2
      entries |= layout.norm(
        f"{merging}.downsample.norm",
        f"encoder/{ours}/norm",
        width if second else 2 * width,
      )
    for i in range(depth):
      entries |= _block(
        f"{theirs}.blocks.{i}",
        f"encoder/stage_{stage}_block_{i}",
        width=width,
        heads=heads,
        hidden=_hidden(width, config["mlp_ratio"]),
        window=config["window_size"],
        second=second,
      )
  return {
    **entries,
    **layout.norm(f"{model_type}.layernorm", "encoder/norm", width),
    **layout.pixel_head(
      "decoder.0",
      "head",
      width=width,
      channels=channels,
      patch=patch,
      stride=config["encoder_stride"] // patch,
    ),
  }


def _block(
  theirs: str,
  ours: str,
  *,
  width: int,
  heads: int,
  hidden: int,
  window: int,
  second: bool,
) -> layout.Entries:
  attention = f"{theirs}.attention.self"
  entries: layout.Entries = {}
  for name in ("query", "key", "value"):
    entries |= layout.dense(
      f"{attention}.{name}",
      f"{ours}/attention/{name}",
      (width, width),
      bias=not second or name != "key",
    )
  if second:
    bias = f"{attention}.continuous_position_bias_mlp"
    entries |= {
      f"{attention}.logit_scale": Entry(f"{ours}/attention/logit_scale", (heads, 1, 1)),
      **layout.dense(f"{bias}.0", f"{ours}/relative/up", (512, 2)),
      **layout.dense(f"{bias}.2", f"{ours}/relative/down", (heads, 512), bias=False),
    }
  else:
    entries[f"{attention}.relative_position_bias_table"] = Entry(
      f"{ours}/relative/table", ((2 * window - 1) ** 2, heads)
    )
  return {
    **entries,
    **layout.dense(
      f"{theirs}.attention.output.dense", f"{ours}/attention/out", (width, width)
    ),
    **layout.dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/up", (hidden, width)),
    **layout.dense(f"{theirs}.output.dense", f"{ours}/mlp/down", (width, hidden)),
    **layout.norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm", width),
    **layout.norm(f"{theirs}.layernorm_after", f"{ours}/mlp_norm", width),
  }


def _hidden(width: int, mlp_ratio: float) -> int:
  """The hidden width, which must be whole: the two libraries round differently."""
  hidden = width * mlp_ratio
  if hidden != round(hidden):
    raise UserError(f"mlp_ratio={mlp_ratio}: expected a whole multiple of {width}")
  return round(hidden)
