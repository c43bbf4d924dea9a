"""MAE's weights as `ViTMAEForPreTraining` of Hugging Face Transformers has them.

The two hold the same numbers: dense kernels are transposed, and the convolution
that embeds patches is one dense kernel on patches. The sine-cosine position
tables, which are stored there, are computed here. Reading and writing back
changes no bit of float32 weights.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.models import Transformer, unstack_blocks
from maskjax.objectives import mae
from maskjax.tokens import grid_of, sincos
from maskjax.tokens.patches import pair

# What `ViTMAEConfig` takes where its config.json is silent.
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

# The only values of these that the model here can take.
FIXED: Mapping[str, Any] = {
  "attention_probs_dropout_prob": 0.0,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "qkv_bias": True,
}


class Place(NamedTuple):
  """Where a tensor stands here, and how it is shaped there.

  Attributes:
    path: keys of the tree of parameters, joined by `/`.
    shape: as it is stored there; `_ours` and `_theirs` change the layout.
  """

  path: str
  shape: tuple[int, ...]


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
    Keyword arguments for `maskjax.objectives.mae`, and the parameters of its
    model: a tree of float32 arrays with separate blocks.

  Raises:
    UserError: a config that the model here cannot follow; tensors that are
      missing, unknown, misshapen or of another type; position tables that are
      not the sine-cosine ones. Names the key or the tensors.
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
  mae(**hyperparameters)  # says what does not fit together
  if not any(name.startswith("decoder.") for name in tensors):
    raise UserError(
      "the decoder is missing: expected the tensors of a ViTMAEForPreTraining, "
      f"found {len(tensors)} tensors, none of them 'decoder.*'"
    )
  found = {
    name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers."): tensor
    for name, tensor in tensors.items()
  }
  places, positions = _places(config), _positions(config)
  shapes = {name: place.shape for name, place in places.items()}
  shapes |= {name: table.shape for name, table in positions.items()}
  _check_shapes("tensors", shapes, {name: t.shape for name, t in found.items()})
  for name, table in positions.items():
    _check_positions(name, found[name], table)
  params: dict[str, Any] = {}
  for name, (path, _) in places.items():
    *parents, leaf = path.split("/")
    branch = params
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[leaf] = _ours(_float32(name, found[name]))
  return hyperparameters, params


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.objectives.mae`. Those that do
      not shape the network are left out: `mask`, `dtype`, `scan` and `remat`.
    params: the parameters of its model, with separate or with scanned blocks.

  Returns:
    The content of `config.json`, and the tensors by name. transformers opens
    them where the number of patches is a perfect square.

  Raises:
    UserError: a network that transformers has no word for, or parameters that
      are not those of the hyperparameters. Names the key or the arrays.
  """
  objective = mae(**hyperparameters)
  encoder, decoder = objective.model.encoder, objective.model.decoder
  patch, other_side = objective.patch_size
  if patch != other_side:
    raise UserError(
      f"patch_size={patch}x{other_side}: transformers takes square patches only"
    )
  height, width = (side * patch for side in objective.grid)
  mlp_ratio = encoder.options.get("mlp_ratio", Transformer.mlp_ratio)
  config = {
    **DEFAULTS,
    "architectures": ["ViTMAEForPreTraining"],
    "decoder_hidden_size": decoder.width,
    "decoder_intermediate_size": round(decoder.width * mlp_ratio),
    "decoder_num_attention_heads": decoder.heads,
    "decoder_num_hidden_layers": decoder.depth,
    "dtype": "float32",
    "hidden_size": encoder.width,
    "image_size": height if height == width else [height, width],
    "intermediate_size": round(encoder.width * mlp_ratio),
    "layer_norm_eps": encoder.norm_epsilon,
    "mask_ratio": hyperparameters.get("mask_ratio", DEFAULTS["mask_ratio"]),
    "model_type": "vit_mae",
    "norm_pix_loss": hyperparameters.get("norm_pix_loss", True),
    "num_attention_heads": encoder.heads,
    "num_channels": objective.channels,
    "num_hidden_layers": encoder.depth,
    "patch_size": patch,
  }
  tree = unstack_blocks(jax.tree.map(np.asarray, dict(params)))
  found = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  places = _places(config)
  _check_shapes(
    "params",
    {path: _our_shape(shape) for path, shape in places.values()},
    {path: leaf.shape for path, leaf in found.items()},
  )
  tensors = {
    name: _theirs(_float32(path, found[path]), shape)
    for name, (path, shape) in places.items()
  }
  return config, tensors | _positions(config)


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
  """The entries that matter, defaults filled in, `image_size` as a pair."""
  if config.get("model_type") != "vit_mae":
    raise UserError(f"model_type={config.get('model_type')!r}: expected 'vit_mae'")
  config = {key: config.get(key, default) for key, default in DEFAULTS.items()}
  for key, value in FIXED.items():
    if config[key] != value:
      raise UserError(f"{key}={config[key]!r}: only {value!r} is supported")
  for key, default in DEFAULTS.items():
    kind, value = type(default), config[key]
    if key in ("image_size", "patch_size"):
      config[key] = _sides(key, value)
    elif type(value) is not kind and not (kind is float and type(value) is int):
      raise UserError(f"{key}={value!r}: expected {kind.__name__}, like {default!r}")
    elif kind is int and value < 1:
      raise UserError(f"{key}={value!r}: expected a positive integer")
  patch, other_side = config["patch_size"]
  if patch != other_side:
    raise UserError(f"patch_size={patch}x{other_side}: expected a square")
  config["patch_size"] = patch
  ratio = config["intermediate_size"] / config["hidden_size"]
  decoder_hidden = round(config["decoder_hidden_size"] * ratio)
  if config["decoder_intermediate_size"] != decoder_hidden:
    raise UserError(
      f"decoder_intermediate_size={config['decoder_intermediate_size']}: expected "
      f"{decoder_hidden}, since encoder and decoder share one mlp_ratio "
      f"(intermediate_size / hidden_size = {ratio:g})"
    )
  return config


def _sides(key: str, value: Any) -> tuple[int, int]:
  """Reads a size that is one number for both sides, or a list of two."""
  sides = value if isinstance(value, list | tuple) else (value, value)
  if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
    raise UserError(f"{key}={value!r}: expected positive integers")
  return sides[0], sides[1]


def _places(config: Mapping[str, Any]) -> dict[str, Place]:
  """Where each tensor stands, but for the position tables."""
  width, decoder_width = config["hidden_size"], config["decoder_hidden_size"]
  patch, channels = config["patch_size"], config["num_channels"]
  convolution = (width, channels, patch, patch)
  patch_dim = channels * patch**2
  embeddings = "vit.embeddings."
  places = {
    embeddings + "cls_token": Place("encoder/cls", (1, 1, width)),
    "decoder.mask_token": Place("decoder/mask_token", (1, 1, decoder_width)),
  }
  places |= _dense(
    embeddings + "patch_embeddings.projection", "encoder/embed", convolution
  )
  places |= _blocks(config, "", "vit.encoder.layer", "encoder")
  places |= _norm("vit.layernorm", "encoder/norm", width)
  places |= _dense("decoder.decoder_embed", "decoder/embed", (decoder_width, width))
  places |= _blocks(config, "decoder_", "decoder.decoder_layers", "decoder")
  places |= _norm("decoder.decoder_norm", "decoder/norm", decoder_width)
  places |= _dense("decoder.decoder_pred", "decoder/head", (patch_dim, decoder_width))
  return places


def _blocks(
  config: Mapping[str, Any], prefix: str, theirs: str, ours: str
) -> dict[str, Place]:
  width, hidden = config[f"{prefix}hidden_size"], config[f"{prefix}intermediate_size"]
  places: dict[str, Place] = {}
  for i in range(config[f"{prefix}num_hidden_layers"]):
    there, here = f"{theirs}.{i}", f"{ours}/transformer/block_{i}"
    for name in ("query", "key", "value"):
      places |= _dense(
        f"{there}.attention.attention.{name}",
        f"{here}/attention/{name}",
        (width, width),
      )
    places |= _dense(
      f"{there}.attention.output.dense", f"{here}/attention/out", (width, width)
    )
    places |= _dense(f"{there}.intermediate.dense", f"{here}/mlp/up", (hidden, width))
    places |= _dense(f"{there}.output.dense", f"{here}/mlp/down", (width, hidden))
    places |= _norm(f"{there}.layernorm_before", f"{here}/attention_norm", width)
    places |= _norm(f"{there}.layernorm_after", f"{here}/mlp_norm", width)
  return places


def _dense(theirs: str, ours: str, shape: tuple[int, ...]) -> dict[str, Place]:
  return {
    f"{theirs}.weight": Place(f"{ours}/kernel", shape),
    f"{theirs}.bias": Place(f"{ours}/bias", shape[:1]),
  }


def _norm(theirs: str, ours: str, width: int) -> dict[str, Place]:
  return {
    f"{theirs}.weight": Place(f"{ours}/scale", (width,)),
    f"{theirs}.bias": Place(f"{ours}/bias", (width,)),
  }


def _our_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of `_ours` of a tensor of that shape."""
  if len(shape) == 4:
    return math.prod(shape[1:]), shape[0]
  return shape[::-1] if len(shape) == 2 else shape


def _float32(name: str, array: np.ndarray) -> np.ndarray:
  """Widens the types that float32 holds without loss."""
  if array.dtype not in (np.float32, np.float16, jnp.bfloat16):
    raise UserError(f"{name!r} is {array.dtype}: expected float32, float16 or bfloat16")
  return array.astype(np.float32)


def _ours(tensor: np.ndarray) -> np.ndarray:
  """Their layout to ours; the rank says which kind of tensor it is."""
  if tensor.ndim == 4:
    # [D, C, P, P] -> [P, P, C, D] -> [P * P * C, D], in the order of patchify
    return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
  return np.ascontiguousarray(tensor.T) if tensor.ndim == 2 else tensor


def _theirs(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """The inverse of `_ours`: our layout to theirs, of that shape."""
  if len(shape) == 4:
    width, channels, rows, columns = shape
    # [P * P * C, D] -> [P, P, C, D] -> [D, C, P, P]
    cut = array.reshape(rows, columns, channels, width)
    return np.ascontiguousarray(cut.transpose(3, 2, 0, 1))
  return np.ascontiguousarray(array.T) if len(shape) == 2 else array


def _positions(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The position tables [1, 1 + N, D], whose first row, the class token's, is 0."""
  grid = grid_of(pair(config["image_size"]), config["patch_size"])
  return {
    name: np.pad(sincos(grid, config[key]), ((1, 0), (0, 0)))[None]
    for name, key in (
      ("vit.embeddings.position_embeddings", "hidden_size"),
      ("decoder.decoder_pos_embed", "decoder_hidden_size"),
    )
  }


def _check_positions(name: str, found: np.ndarray, table: np.ndarray) -> None:
  # Tables that were computed in float32 err by a few roundings of angles of some
  # dozen radians, less than 1e-5; bfloat16 rounds numbers below 1 by up to 2e-3.
  off = float(np.abs(_float32(name, found) - table).max())
  tolerance = 1e-5 if found.dtype == np.float32 else 4e-3
  if not off <= tolerance:
    hint = "" if found.any() else " (it is all zeros: it was never initialised)"
    raise UserError(
      f"{name!r} is {off:.2g} off the sine-cosine table that this model "
      f"computes, more than {tolerance:.2g}{hint}"
    )


def _check_shapes(
  role: str,
  expected: Mapping[str, tuple[int, ...]],
  found: Mapping[str, tuple[int, ...]],
) -> None:
  """Raises one error that names what is missing, unknown and misshapen."""
  complaints = [
    ("missing", [n for n in expected if n not in found]),
    ("unknown", [n for n in found if n not in expected]),
    (
      "misshapen",
      [
        f"{n}: expected {list(expected[n])}, found {list(found[n])}"
        for n in expected
        if n in found and found[n] != expected[n]
      ],
    ),
  ]
  said = [f"{len(names)} {kind} ({_few(names)})" for kind, names in complaints if names]
  if said:
    raise UserError(f"{role} do not fit the config: {'; '.join(said)}")


def _few(names: list[str]) -> str:
  return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
