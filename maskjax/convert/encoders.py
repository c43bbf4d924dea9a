"""What the converters of plain image encoders, of the objective `vit`, share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import Entries, Layout
from maskjax.objectives import vit
from maskjax.tokens import grid_of
from maskjax.tokens.patches import per_side

# A class token, theirs [D] or [1, 1, D], and a position table, [N, D] or [1, N, D].
TOKEN = Layout(
  lambda tensor: tensor.reshape(1, 1, -1),
  lambda array, shape: array.reshape(shape),
  lambda shape: (1, 1, shape[-1]),
)
TABLE = Layout(
  lambda tensor: tensor.reshape(tensor.shape[-2:]),
  lambda array, shape: array.reshape(shape),
  lambda shape: shape[-2:],
)


def to_params(
  entries: Entries,
  tensors: Mapping[str, np.ndarray],
  *,
  prefix: str,
  unused: Sequence[str] = (),
) -> dict[str, Any]:
  """Converts an encoder's tensors to parameters.

  The first row of their position table belongs to the class token, and is added to it.

  Args:
    entries: of the encoder's tensors.
    tensors: of the encoder, or of a model that contains it.
    prefix: of the encoder's tensors in such a model.
    unused: names of tensors that features do not depend on.

  Raises:
    UserError: see `maskjax.convert.layout.to_params`.
  """
  if any(name.startswith(prefix) for name in tensors):
    tensors = {n: t for n, t in tensors.items() if n.startswith(prefix)}
  found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
  found = {name: tensor for name, tensor in found.items() if name not in unused}
  encoder = layout.to_params(entries, found)["encoder"]
  if "cls" in encoder:
    positions = encoder["positions"]
    encoder["cls"] = encoder["cls"] + positions[0]
    encoder["positions"] = positions[1:]
  return {"encoder": encoder}


def to_tensors(entries: Entries, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The inverse of `to_params`: the class token's position embedding is 0."""
  encoder = dict(params["encoder"])
  if "cls" in encoder:
    encoder["positions"] = np.pad(np.asarray(encoder["positions"]), ((1, 0), (0, 0)))
  return layout.to_tensors(entries, {"encoder": encoder})


def hyperparameters(
  encoder_type: str, config: Mapping[str, Any], *, hidden_size: int
) -> dict[str, Any]:
  """Keyword arguments for `maskjax.objectives.vit`.

  Args:
    encoder_type: see `maskjax.objectives.vit`.
    config: a checked `config.json`.
    hidden_size: hidden width of the blocks' MLPs.

  Raises:
    UserError: they do not fit together; names the key.
  """
  height, width = config["image_size"]
  found = {
    "encoder_type": encoder_type,
    "image_size": height if height == width else (height, width),
    "channels": config["num_channels"],
    "patch_size": config["patch_size"],
    "encoder": {
      "width": config["hidden_size"],
      "depth": config["num_hidden_layers"],
      "heads": config["num_attention_heads"],
    },
    "activation": config["hidden_act"],
    "norm_epsilon": config["layer_norm_eps"],
    "mlp_ratio": hidden_size / config["hidden_size"],
  }
  vit(**found)  # raises if they do not fit together
  return found


def config_of(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
  """The entries of `config.json` that all image encoders have.

  Args:
    hyperparameters: keyword arguments of `maskjax.objectives.vit`.

  Raises:
    UserError: patches that are not square.
  """
  objective = vit(**hyperparameters)
  encoder, patches = objective.encoder, objective.patches
  return {
    "dtype": "float32",
    "hidden_act": encoder.options.activation,
    "hidden_size": encoder.width,
    "image_size": layout.one_or_two(patches.shape[:2]),
    "layer_norm_eps": encoder.norm_epsilon,
    "num_attention_heads": encoder.heads,
    "num_channels": patches.channels,
    "num_hidden_layers": encoder.depth,
    "patch_size": layout.square(patches.size),
  }


def num_patches(config: Mapping[str, Any]) -> int:
  """The number of patches of an image."""
  rows, columns = grid_of(per_side(config["image_size"]), config["patch_size"])
  return rows * columns


def patch_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
  """The shape [D, C, P, P] of the convolution that embeds patches."""
  side = config["patch_size"]
  return config["hidden_size"], config["num_channels"], side, side


def vit_entries(config: Mapping[str, Any]) -> Entries:
  """The entries of a ViT in transformers, without class token and positions."""
  return {
    **layout.patches(
      "embeddings.patch_embeddings.projection", "encoder/embed", patch_shape(config)
    ),
    **layout.vit_blocks(
      "encoder.layer",
      "encoder",
      width=config["hidden_size"],
      hidden=config["intermediate_size"],
      depth=config["num_hidden_layers"],
    ),
    **layout.norm("layernorm", "encoder/norm", config["hidden_size"]),
  }
