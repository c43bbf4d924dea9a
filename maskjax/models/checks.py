"""Checks of the hyperparameters that networks of all kinds have."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from maskjax.errors import UserError, did_you_mean


def check_shape(role: str, shape: Mapping[str, Any]) -> dict[str, Any]:
  """Checks the `width`, `depth` and `heads` of a network.

  Args:
    role: the name of the network in a config.
    shape: the three numbers, by name.

  Returns:
    The same.

  Raises:
    UserError: a number that is missing, unknown or not positive, or heads that do not
      divide the width; names it.

  Example:
    >>> check_shape("decoder", {"width": 8, "depth": 1, "heads": 3})
    Traceback (most recent call last):
    maskjax.errors.UserError: decoder.width=8: expected a multiple of decoder.heads=3
  """
  for key in ("width", "depth", "heads"):
    if not isinstance(shape.get(key), int) or shape[key] < 1:
      raise UserError(f"{role}.{key}={shape.get(key)}: expected a positive integer")
  for key in shape:
    if key not in ("width", "depth", "heads"):
      raise UserError(f"{role}.{key}: {did_you_mean(key, ('width', 'depth', 'heads'))}")
  if shape["width"] % shape["heads"]:
    raise UserError(
      f"{role}.width={shape['width']}: expected a multiple of "
      f"{role}.heads={shape['heads']}"
    )
  return dict(shape)


def check_rotary(role: str, *, width: int, heads: int, axes: int) -> None:
  """Checks that rotary positions fit the heads of a network.

  Args:
    role: the name of the network in a config.
    width: number of channels.
    heads: number of attention heads.
    axes: of the positions: 1 for text, 2 for images, 3 for clips.

  Raises:
    UserError: the channels of a head do not divide into pairs for each axis.

  Example:
    >>> check_rotary("encoder", width=16, heads=2, axes=2)
  """
  if width // heads % (2 * axes):
    raise UserError(
      f"{role}.width={width}: expected a multiple of {2 * axes} channels for each of "
      f"{role}.heads={heads}, for rotary positions"
    )


def check_dtype(dtype: DTypeLike) -> jnp.dtype:
  """Reads the type of the computation.

  Args:
    dtype: `float32` or `bfloat16`, as a name or as a type.

  Raises:
    UserError: another type.

  Example:
    >>> check_dtype("bfloat16")
    dtype(bfloat16)
  """
  known = {str(jnp.dtype(kind)): jnp.dtype(kind) for kind in ("float32", "bfloat16")}
  name = dtype if isinstance(dtype, str) else str(jnp.dtype(dtype))
  if name not in known:
    raise UserError(f"dtype={name!r}: expected 'float32' or 'bfloat16'")
  return known[name]
