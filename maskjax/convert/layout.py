"""What converters share: where tensors stand, in which layout, and the checks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.models import unstack_blocks
from maskjax.sharding import path_name

Shape = tuple[int, ...]


class Layout(NamedTuple):
  """How a tensor of another library and an array here hold the same numbers.

  Attributes:
    ours: their tensor to our array.
    theirs: its inverse, given the shape of their tensor.
    our_shape: the shape of what `ours` gives, given that of their tensor.
  """

  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray, Shape], np.ndarray]
  our_shape: Callable[[Shape], Shape]


def _transposed(tensor: np.ndarray, shape: Shape = ()) -> np.ndarray:
  del shape
  return np.ascontiguousarray(tensor.T)


def _patches_to_ours(tensor: np.ndarray) -> np.ndarray:
  # [D, C, P, Q] -> [P, Q, C, D] -> [P * Q * C, D], in the order of patchify
  return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])


def _patches_to_theirs(array: np.ndarray, shape: Shape) -> np.ndarray:
  width, channels, rows, columns = shape
  # [P * Q * C, D] -> [P, Q, C, D] -> [D, C, P, Q]
  cut = array.reshape(rows, columns, channels, width)
  return np.ascontiguousarray(cut.transpose(3, 2, 0, 1))


def _without_ones(shape: Shape) -> Shape:
  sizes = (i for i, side in enumerate(shape) if side > 1)
  return shape[next(sizes, len(shape) - 1) :]


SAME = Layout(lambda tensor: tensor, lambda array, _: array, lambda shape: shape)
# Without their leading axes of length 1.
SQUEEZED = Layout(
  lambda tensor: tensor.reshape(_without_ones(tensor.shape)),
  lambda array, shape: array.reshape(shape),
  _without_ones,
)
# A dense kernel, [out, in] there and [in, out] here.
DENSE = Layout(_transposed, _transposed, lambda shape: shape[::-1])
# The convolution [D, C, P, Q] that embeds patches, one dense kernel on patches here.
PATCHES = Layout(
  _patches_to_ours,
  _patches_to_theirs,
  lambda shape: (math.prod(shape[1:]), shape[0]),
)


def shuffled_pixels(patch: int, stride: int) -> Layout:
  """Of a 1x1 convolution before a pixel shuffle, a dense layer to patches here.

  Args:
    patch: side of a patch in pixels.
    stride: rows and columns of patches that one pixel of the convolution becomes.

  Returns:
    Of the kernel, [K, D, 1, 1] there and [D, K] here, and of the bias [K]; K runs
    over channels, rows and columns there, and over patches, their rows, columns and
    channels here.
  """

  def ours(tensor: np.ndarray) -> np.ndarray:
    cut = tensor.reshape(-1, stride, patch, stride, patch, math.prod(tensor.shape[1:]))
    # [C, S, P, S, P, D] -> [S, S, P, P, C, D] -> [K, D]
    rows = cut.transpose(1, 3, 2, 4, 0, 5).reshape(len(tensor), -1)
    return rows[:, 0] if tensor.ndim == 1 else np.ascontiguousarray(rows.T)

  def theirs(array: np.ndarray, shape: Shape) -> np.ndarray:
    cut = array.T.reshape(stride, stride, patch, patch, -1, math.prod(shape[1:]))
    # [S, S, P, P, C, D] -> [C, S, P, S, P, D] -> [K, D, 1, 1]
    return cut.transpose(4, 0, 2, 1, 3, 5).reshape(shape)

  return Layout(
    ours, theirs, lambda shape: shape if len(shape) == 1 else (shape[1], shape[0])
  )


class Place(NamedTuple):
  """Where a tensor stands here, and how it is shaped there.

  Attributes:
    path: keys of the tree of parameters, joined by `/`.
    shape: as it is stored there.
    layout: how the two hold the same numbers.
  """

  path: str
  shape: Shape
  layout: Layout = SAME


Places = dict[str, Place]


def dense(theirs: str, ours: str, shape: Shape, *, bias: bool = True) -> Places:
  """The places of a dense layer; `shape` is [out, in], as it is there."""
  places = {f"{theirs}.weight": Place(f"{ours}/kernel", shape, DENSE)}
  if bias:
    places[f"{theirs}.bias"] = Place(f"{ours}/bias", shape[:1])
  return places


def patches(theirs: str, ours: str, shape: Shape, *, bias: bool = True) -> Places:
  """The places of the embedding of patches; `shape` is [D, C, P, Q]."""
  places = {f"{theirs}.weight": Place(f"{ours}/kernel", shape, PATCHES)}
  if bias:
    places[f"{theirs}.bias"] = Place(f"{ours}/bias", shape[:1])
  return places


def norm(theirs: str, ours: str, width: int) -> Places:
  """The places of a layer normalization."""
  return {
    f"{theirs}.weight": Place(f"{ours}/scale", (width,)),
    f"{theirs}.bias": Place(f"{ours}/bias", (width,)),
  }


def pixel_head(
  theirs: str, ours: str, *, width: int, channels: int, patch: int, stride: int = 1
) -> Places:
  """The places of the layer that predicts pixels, see `shuffled_pixels`."""
  size, layout = channels * (patch * stride) ** 2, shuffled_pixels(patch, stride)
  return {
    f"{theirs}.weight": Place(f"{ours}/kernel", (size, width, 1, 1), layout),
    f"{theirs}.bias": Place(f"{ours}/bias", (size,), layout),
  }


# The parts of a block here, and as transformers names them in the files of ViTs.
VIT_NAMES: Mapping[str, str] = {
  "attention/query": "attention.attention.query",
  "attention/key": "attention.attention.key",
  "attention/value": "attention.attention.value",
  "attention/out": "attention.output.dense",
  "mlp/up": "intermediate.dense",
  "mlp/down": "output.dense",
  "attention_norm": "layernorm_before",
  "mlp_norm": "layernorm_after",
}


def vit_blocks(
  theirs: str,
  ours: str,
  *,
  width: int,
  hidden: int,
  depth: int,
  key_bias: bool = True,
  names: Mapping[str, str] = VIT_NAMES,
) -> Places:
  """The places of the blocks of a ViT.

  Args:
    theirs: what stands before the number of a block there.
    ours: what stands before `/transformer` here.
    width: channels.
    hidden: channels in the blocks' networks.
    depth: number of blocks.
    key_bias: whether the keys have a bias.
    names: of the parts of a block there, by their paths here.
  """
  shapes = {"mlp/up": (hidden, width), "mlp/down": (width, hidden)}
  places: Places = {}
  for i in range(depth):
    for part, name in names.items():
      there, here = f"{theirs}.{i}.{name}", f"{ours}/transformer/block_{i}/{part}"
      if part.endswith("_norm"):
        places |= norm(there, here, width)
      elif part.endswith("_scale"):
        places[there] = Place(here, (width,))
      else:
        bias = key_bias or part != "attention/key"
        places |= dense(there, here, shapes.get(part, (width, width)), bias=bias)
  return places


def to_params(
  places: Mapping[str, Place],
  tensors: Mapping[str, np.ndarray],
  *,
  tables: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Puts tensors in their places.

  Args:
    places: by the tensors' names.
    tensors: float32, or float16 or bfloat16, which become float32 without loss.
    tables: tensors that are stored there and computed here, which must be the same.

  Returns:
    A tree of float32 arrays.

  Raises:
    UserError: tensors that are missing, unknown, misshapen or of another type; names
      them.
  """
  tables = {} if tables is None else tables
  shapes = {name: place.shape for name, place in places.items()}
  shapes |= {name: table.shape for name, table in tables.items()}
  check_shapes("tensors", shapes, {name: t.shape for name, t in tensors.items()})
  for name, table in tables.items():
    check_table(name, tensors[name], table)
  params: dict[str, Any] = {}
  for name, place in places.items():
    *parents, leaf = place.path.split("/")
    branch = params
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[leaf] = place.layout.ours(float32(name, tensors[name]))
  return params


def to_tensors(
  places: Mapping[str, Place], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The inverse of `to_params`; blocks may be separate or scanned."""
  tree = unstack_blocks(jax.tree.map(np.asarray, dict(params)))
  found = {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
  check_shapes(
    "params",
    {place.path: place.layout.our_shape(place.shape) for place in places.values()},
    {path: leaf.shape for path, leaf in found.items()},
  )
  return {
    name: place.layout.theirs(float32(place.path, found[place.path]), place.shape)
    for name, place in places.items()
  }


def with_class_position(
  tensors: Mapping[str, np.ndarray], token: str, positions: str
) -> dict[str, np.ndarray]:
  """Makes the class token's position a part of the token, as it is here.

  Args:
    tensors: by name, unchanged.
    token: name of the class token, [1, 1, D].
    positions: name of the table [1, 1 + N, D], which loses its first row.
  """
  found = dict(tensors)
  if token in found and positions in found and found[positions].ndim == 3:
    table = float32(positions, found[positions])
    found[token] = float32(token, found[token]) + table[:, :1]
    found[positions] = table[:, 1:]
  return found


def without_class_position(
  tensors: Mapping[str, np.ndarray], positions: str
) -> dict[str, np.ndarray]:
  """The inverse of `with_class_position` that makes the class token's position 0."""
  table = np.pad(tensors[positions], ((0, 0), (1, 0), (0, 0)))
  return {**tensors, positions: table}


def float32(name: str, array: np.ndarray) -> np.ndarray:
  """Widens the types that float32 holds without loss."""
  if array.dtype not in (np.float32, np.float16, jnp.bfloat16):
    raise UserError(f"{name!r} is {array.dtype}: expected float32, float16 or bfloat16")
  return array.astype(np.float32)


def check_config(
  config: Mapping[str, Any],
  *,
  model_type: str,
  defaults: Mapping[str, Any],
  fixed: Mapping[str, Any],
) -> dict[str, Any]:
  """Reads a `config.json`.

  Args:
    config: its content.
    model_type: which it must be of.
    defaults: of the keys that matter, what they are where it is silent. A value has
      to be of its default's type; integers are positive.
    fixed: the only values of some of them that the model here can take.

  Returns:
    The keys of `defaults`; if they are among these, `image_size` as a pair and
    `patch_size` as one number.

  Raises:
    UserError: names the key.
  """
  if config.get("model_type") != model_type:
    raise UserError(f"model_type={config.get('model_type')!r}: expected {model_type!r}")
  config = {key: config.get(key, default) for key, default in defaults.items()}
  for key, value in fixed.items():
    if config[key] != value:
      raise UserError(f"{key}={config[key]!r}: only {value!r} is supported")
  for key, default in defaults.items():
    if key in ("image_size", "patch_size"):
      config[key] = sides(key, config[key])
    else:
      _check_value(key, config[key], default)
  if "patch_size" in defaults:
    patch, other_side = config["patch_size"]
    if patch != other_side:
      raise UserError(f"patch_size={patch}x{other_side}: expected a square")
    config["patch_size"] = patch
  return config


def square(size: Sequence[int], key: str = "patch_size") -> int:
  """The side of what has to be square there."""
  side, other_side = size
  if side != other_side:
    raise UserError(f"{key}={side}x{other_side}: transformers takes squares only")
  return side


def sides(key: str, value: Any) -> tuple[int, int]:
  """Reads a size that is one number for both sides, or a list of two."""
  pair = value if isinstance(value, list | tuple) else (value, value)
  if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
    raise UserError(f"{key}={value!r}: expected positive integers")
  return pair[0], pair[1]


def one_or_two(size: Sequence[int]) -> Any:
  """A size as configs write it: one number where both sides are the same."""
  return size[0] if size[0] == size[1] else list(size)


def check_table(name: str, found: np.ndarray, table: np.ndarray) -> None:
  """Raises a `UserError` unless a position table is what the model here computes."""
  # Tables that were computed in float32 err by a few roundings of angles of some
  # dozen radians, less than 1e-5; bfloat16 rounds numbers below 1 by up to 2e-3.
  off = float(np.abs(float32(name, found) - table).max())
  tolerance = 1e-5 if found.dtype == np.float32 else 4e-3
  if not off <= tolerance:
    hint = "" if found.any() else " (it is all zeros: it was never initialized)"
    raise UserError(
      f"{name!r} is {off:.2g} off the sine-cosine table that this model "
      f"computes, more than {tolerance:.2g}{hint}"
    )


def check_shapes(
  role: str, expected: Mapping[str, Shape], found: Mapping[str, Shape]
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


def _check_value(key: str, value: Any, default: Any) -> None:
  kind = type(default)
  if kind is tuple:
    if not isinstance(value, list | tuple) or len(value) < 1:
      raise UserError(f"{key}={value!r}: expected a list, like {list(default)}")
    for item in value:
      _check_value(key, item, default[0])
  elif type(value) is not kind and not (kind is float and type(value) is int):
    raise UserError(f"{key}={value!r}: expected {kind.__name__}, like {default!r}")
  elif kind is int and value < 1:
    raise UserError(f"{key}={value!r}: expected a positive integer")


def _few(names: list[str]) -> str:
  return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
