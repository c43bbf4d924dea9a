"""What converters share: entries, that is names, paths and layouts, and checks.

"Theirs" are the tensors and configs of the other library, "ours" the arrays of
parameters here.
"""

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
  """A conversion between a tensor of another library and an array here.

  Attributes:
    ours: converts their tensor to our array.
    theirs: the inverse, given the shape of their tensor.
    our_shape: computes the shape of our array from that of their tensor.
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
# Their tensor has leading axes of length 1 that ours lacks.
SQUEEZED = Layout(
  lambda tensor: tensor.reshape(_without_ones(tensor.shape)),
  lambda array, shape: array.reshape(shape),
  _without_ones,
)
# A dense kernel, theirs [out, in] and ours [in, out].
DENSE = Layout(_transposed, _transposed, lambda shape: shape[::-1])
# The embedding of patches, theirs a convolution [D, C, P, Q], ours dense [P Q C, D].
PATCHES = Layout(
  _patches_to_ours,
  _patches_to_theirs,
  lambda shape: (math.prod(shape[1:]), shape[0]),
)


def shuffled_pixels(patch: int, stride: int) -> Layout:
  """The layout of a layer that predicts pixels.

  Theirs is a 1x1 convolution before a pixel shuffle, ours a dense layer to patches.

  Args:
    patch: side of a patch in pixels.
    stride: rows and columns of patches that one output of the convolution becomes.

  Returns:
    A layout for the kernel, theirs [K, D, 1, 1] and ours [D, K], and for the bias [K].
    Their K runs over channels, rows and columns; ours over patches, then the rows,
    columns and channels of a patch.
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


class Entry(NamedTuple):
  """The counterpart of one of their tensors.

  Attributes:
    path: of our array, the keys of the tree of parameters joined by `/`.
    shape: of their tensor.
    layout: converts between the two.
  """

  path: str
  shape: Shape
  layout: Layout = SAME


Entries = dict[str, Entry]  # by the names of their tensors


def dense(theirs: str, ours: str, shape: Shape, *, bias: bool = True) -> Entries:
  """The entries of a dense layer; `shape` is [out, in], that of their kernel."""
  entries = {f"{theirs}.weight": Entry(f"{ours}/kernel", shape, DENSE)}
  if bias:
    entries[f"{theirs}.bias"] = Entry(f"{ours}/bias", shape[:1])
  return entries


def patches(theirs: str, ours: str, shape: Shape, *, bias: bool = True) -> Entries:
  """The entries of the embedding of patches; `shape` is [D, C, P, Q], theirs."""
  entries = {f"{theirs}.weight": Entry(f"{ours}/kernel", shape, PATCHES)}
  if bias:
    entries[f"{theirs}.bias"] = Entry(f"{ours}/bias", shape[:1])
  return entries


def norm(theirs: str, ours: str, width: int) -> Entries:
  """The entries of a layer normalization."""
  return {
    f"{theirs}.weight": Entry(f"{ours}/scale", (width,)),
    f"{theirs}.bias": Entry(f"{ours}/bias", (width,)),
  }


def pixel_head(
  theirs: str, ours: str, *, width: int, channels: int, patch: int, stride: int = 1
) -> Entries:
  """The entries of the layer that predicts pixels, see `shuffled_pixels`."""
  size, layout = channels * (patch * stride) ** 2, shuffled_pixels(patch, stride)
  return {
    f"{theirs}.weight": Entry(f"{ours}/kernel", (size, width, 1, 1), layout),
    f"{theirs}.bias": Entry(f"{ours}/bias", (size,), layout),
  }


# The names of the parts of a ViT's block, in transformers by our paths.
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
) -> Entries:
  """The entries of the blocks of a ViT.

  Args:
    theirs: prefix of their names, before the number of a block.
    ours: prefix of our paths, before `/transformer`.
    width: channels.
    hidden: hidden width of the blocks' MLPs.
    depth: number of blocks.
    key_bias: whether the keys have a bias.
    names: their names of the parts of a block, by our paths.
  """
  shapes = {"mlp/up": (hidden, width), "mlp/down": (width, hidden)}
  entries: Entries = {}
  for i in range(depth):
    for part, name in names.items():
      tensor, array = f"{theirs}.{i}.{name}", f"{ours}/transformer/block_{i}/{part}"
      if part.endswith("_norm"):
        entries |= norm(tensor, array, width)
      elif part.endswith("_scale"):
        entries[tensor] = Entry(array, (width,))
      else:
        bias = key_bias or part != "attention/key"
        entries |= dense(tensor, array, shapes.get(part, (width, width)), bias=bias)
  return entries


def to_params(
  entries: Mapping[str, Entry],
  tensors: Mapping[str, np.ndarray],
  *,
  tables: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Converts their tensors to our parameters.

  Args:
    entries: of all tensors but `tables`.
    tensors: by name, float32, float16 or bfloat16; the last two become float32 without
      loss.
    tables: what the model here computes and theirs stores; equal up to rounding.

  Returns:
    A tree of float32 arrays.

  Raises:
    UserError: tensors that are missing, unknown, misshapen or of another type, or a
      table that differs; names them.
  """
  tables = {} if tables is None else tables
  shapes = {name: entry.shape for name, entry in entries.items()}
  shapes |= {name: table.shape for name, table in tables.items()}
  check_shapes("tensors", shapes, {name: t.shape for name, t in tensors.items()})
  for name, table in tables.items():
    check_table(name, tensors[name], table)
  params: dict[str, Any] = {}
  for name, entry in entries.items():
    *parents, leaf = entry.path.split("/")
    branch = params
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[leaf] = entry.layout.ours(float32(name, tensors[name]))
  return params


def to_tensors(
  entries: Mapping[str, Entry], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Converts our parameters to their tensors, the inverse of `to_params`.

  Args:
    entries: of all arrays.
    params: a tree of arrays, with separate or with scanned blocks.

  Returns:
    Float32 tensors by name.

  Raises:
    UserError: arrays that are missing, unknown or misshapen; names them.
  """
  tree = unstack_blocks(jax.tree.map(np.asarray, dict(params)))
  found = {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
  check_shapes(
    "params",
    {entry.path: entry.layout.our_shape(entry.shape) for entry in entries.values()},
    {path: leaf.shape for path, leaf in found.items()},
  )
  return {
    name: entry.layout.theirs(float32(entry.path, found[entry.path]), entry.shape)
    for name, entry in entries.items()
  }


def with_class_position(
  tensors: Mapping[str, np.ndarray], token: str, positions: str
) -> dict[str, np.ndarray]:
  """Adds the class token's position embedding to the token, as the models here do.

  Args:
    tensors: by name; is not changed.
    token: name of the class token, [1, 1, D].
    positions: name of the position table [1, 1 + N, D].

  Returns:
    The tensors, with the sum as `token`, and `positions` [1, N, D] without the class
    token's row.
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
  """The inverse of `with_class_position`: the class token's position embedding is 0."""
  table = np.pad(tensors[positions], ((0, 0), (1, 0), (0, 0)))
  return {**tensors, positions: table}


def float32(name: str, array: np.ndarray) -> np.ndarray:
  """Converts float32, float16 or bfloat16 to float32; raises on other types."""
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
  """Checks the content of a `config.json`.

  Args:
    config: the content.
    model_type: that it must have.
    defaults: the keys to read, with their values if they are absent. A value must have
      the type of its default; integers must be positive.
    fixed: the only supported values of some of these keys.

  Returns:
    The values of the keys of `defaults`, with `image_size` as a pair and `patch_size`
    as one number.

  Raises:
    UserError: another model type, or an unsupported value; names the key.
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
  """The side of a size that transformers requires to be square.

  Args:
    size: both sides.
    key: that the message names.

  Raises:
    UserError: the sides differ.
  """
  side, other_side = size
  if side != other_side:
    raise UserError(f"{key}={side}x{other_side}: transformers takes squares only")
  return side


def sides(key: str, value: Any) -> tuple[int, int]:
  """Both sides of a size that is one number or a list of two.

  Args:
    key: that the message names.
    value: of the key.

  Raises:
    UserError: anything else, or a side below 1.
  """
  pair = value if isinstance(value, list | tuple) else (value, value)
  if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
    raise UserError(f"{key}={value!r}: expected positive integers")
  return pair[0], pair[1]


def one_or_two(size: Sequence[int]) -> Any:
  """A size as configs write it: one number if both sides are equal."""
  return size[0] if size[0] == size[1] else list(size)


def check_table(name: str, found: np.ndarray, table: np.ndarray) -> None:
  """Checks that a position table is equal to the one that the model here computes.

  Args:
    name: of their tensor.
    found: their tensor.
    table: as the model here computes it.

  Raises:
    UserError: they differ by more than rounding.
  """
  # In tables that were computed in float32, angles of some dozen radians were rounded a
  # few times, an error below 1e-5; bfloat16 rounds numbers below 1 by up to 2e-3.
  error = float(np.abs(float32(name, found) - table).max())
  tolerance = 1e-5 if found.dtype == np.float32 else 4e-3
  if not error <= tolerance:
    hint = "" if found.any() else " (it is all zeros: it was never initialized)"
    raise UserError(
      f"{name!r} is {error:.2g} off the sine-cosine table that this model "
      f"computes, more than {tolerance:.2g}{hint}"
    )


def check_shapes(
  role: str, expected: Mapping[str, Shape], found: Mapping[str, Shape]
) -> None:
  """Checks names and shapes.

  Args:
    role: what they are, for the message.
    expected: shapes by name.
    found: shapes by name.

  Raises:
    UserError: names that are missing, unknown or misshapen, all in one message.
  """
  problems = [
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
  listed = [f"{len(names)} {kind} ({_few(names)})" for kind, names in problems if names]
  if listed:
    raise UserError(f"{role} do not fit the config: {'; '.join(listed)}")


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
