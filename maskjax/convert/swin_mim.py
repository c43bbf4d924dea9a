"""SimMIM's weights as `SwinForMaskedImageModeling` of transformers has them.

Its sequel's, of `maskjax.convert.swinv2_mim`, differ in the names of what differs in
the networks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import Place
from maskjax.errors import UserError
from maskjax.systems import simmim

MODEL_TYPE = "swin"
OBJECTIVE = "simmim"

# What `SwinConfig` and `Swinv2Config` take where their config.json is silent.
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

# The only values of these that the model here can take. Some of the normalizations
# there have this epsilon whatever `layer_norm_eps` says.
FIXED: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "layer_norm_eps": 1e-5,
  "qkv_bias": True,
  "use_absolute_embeddings": False,
}

# What old files hold beside the weights; it follows from the window.
COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask")


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `SwinForMaskedImageModeling` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.

  Returns:
    Keyword arguments for `maskjax.systems.simmim`, which say nothing of masks, and
    the parameters of its model: a tree of float32 arrays.

  Raises:
    UserError: a config that the model here cannot follow, or tensors that do not fit
      it. Names the key or the tensors.
  """
  return read(MODEL_TYPE, config, tensors)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.systems.simmim`. Those that do
      not shape the network are left out.
    params: the parameters of its model.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers has no word for, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  return write(MODEL_TYPE, hyperparameters, params)


def read(
  model_type: str, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """As `from_hf`, of either version."""
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
      f"encoder_stride={config['encoder_stride']}: expected {stride}, what a token of "
      "the last stage stands for"
    )
  places = _places(model_type, config)
  kept = {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in COMPUTED}
  return hyperparameters, layout.to_params(places, kept)


def write(
  model_type: str, hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """As `to_hf`, of either version."""
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
  return config, layout.to_tensors(_places(model_type, config), params)


def _places(model_type: str, config: Mapping[str, Any]) -> layout.Places:
  """Where each tensor stands."""
  width, patch = config["embed_dim"], config["patch_size"]
  channels, depths = config["num_channels"], config["depths"]
  embeddings = f"{model_type}.embeddings"
  places = {
    f"{embeddings}.mask_token": Place(
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
    there = f"{model_type}.encoder.layers.{stage}"
    if stage:
      merging, here = f"{model_type}.encoder.layers.{stage - 1}", f"merging_{stage}"
      places |= layout.dense(
        f"{merging}.downsample.reduction",
        f"encoder/{here}/dense",
        (2 * width, 4 * width),
        bias=False,
      )
      width *= 2
      places |= layout.norm(
        f"{merging}.downsample.norm",
        f"encoder/{here}/norm",
        width if second else 2 * width,
      )
    for i in range(depth):
      places |= _block(
        f"{there}.blocks.{i}",
        f"encoder/stage_{stage}_block_{i}",
        width=width,
        heads=heads,
        hidden=_hidden(width, config["mlp_ratio"]),
        window=config["window_size"],
        second=second,
      )
  return {
    **places,
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
  there: str,
  here: str,
  *,
  width: int,
  heads: int,
  hidden: int,
  window: int,
  second: bool,
) -> layout.Places:
  attention = f"{there}.attention.self"
  places: layout.Places = {}
  for name in ("query", "key", "value"):
    places |= layout.dense(
      f"{attention}.{name}",
      f"{here}/attention/{name}",
      (width, width),
      bias=not second or name != "key",
    )
  if second:
    bias = f"{attention}.continuous_position_bias_mlp"
    places |= {
      f"{attention}.logit_scale": Place(f"{here}/attention/logit_scale", (heads, 1, 1)),
      **layout.dense(f"{bias}.0", f"{here}/relative/up", (512, 2)),
      **layout.dense(f"{bias}.2", f"{here}/relative/down", (heads, 512), bias=False),
    }
  else:
    places[f"{attention}.relative_position_bias_table"] = Place(
      f"{here}/relative/table", ((2 * window - 1) ** 2, heads)
    )
  return {
    **places,
    **layout.dense(
      f"{there}.attention.output.dense", f"{here}/attention/out", (width, width)
    ),
    **layout.dense(f"{there}.intermediate.dense", f"{here}/mlp/up", (hidden, width)),
    **layout.dense(f"{there}.output.dense", f"{here}/mlp/down", (width, hidden)),
    **layout.norm(f"{there}.layernorm_before", f"{here}/attention_norm", width),
    **layout.norm(f"{there}.layernorm_after", f"{here}/mlp_norm", width),
  }


def _hidden(width: int, mlp_ratio: float) -> int:
  """Which the two libraries round in their own ways."""
  hidden = width * mlp_ratio
  if hidden != round(hidden):
    raise UserError(f"mlp_ratio={mlp_ratio}: expected a whole multiple of {width}")
  return round(hidden)
