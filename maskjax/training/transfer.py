"""Copies parameters from one model into another."""

from pathlib import Path
from typing import Any

import jax

from maskjax.errors import UserError
from maskjax.models import stack_blocks, unstack_blocks
from maskjax.sharding import path_name


def overlay(params: Any, *, pretrained: Any) -> Any:
  """Takes from pretrained parameters all that a model has under the same path.

  Args:
    params: of the new model.
    pretrained: of the old one.

  Returns:
    `params`, with pretrained arrays where there are such.

  Raises:
    UserError: an array has another shape, or not one was found.
  """
  old = _by_name(_blocks_as_in(params, pretrained))
  used = []

  def choose(path: tuple, leaf: Any) -> Any:
    name = path_name(path)
    if name not in old:
      return leaf
    if old[name].shape != leaf.shape:
      raise UserError(
        f"init_from: {name} has the shape {list(old[name].shape)}: "
        f"expected {list(leaf.shape)}"
      )
    used.append(name)
    return old[name]

  mixed = jax.tree.map_with_path(choose, params)
  if not used:
    raise UserError(
      f"init_from: none of its {len(old)} parameters is one of this model's "
      f"(expected for example {next(iter(_by_name(params)))})"
    )
  return mixed


def check_same(params: Any, like: Any, source: str | Path) -> None:
  """Raises a `UserError` unless parameters have the names and shapes of others.

  Args:
    params: what was read.
    like: what the config's model has.
    source: where it was read from, for the message.
  """
  found, expected = _by_name(params), _by_name(like)
  for name in sorted({**found, **expected}):
    shapes = [list(d[name].shape) if name in d else "none" for d in (found, expected)]
    if shapes[0] != shapes[1]:
      raise UserError(
        f"{source} does not fit the config: parameter {name} has the shape "
        f"{shapes[0]}, expected {shapes[1]}"
      )


def _blocks_as_in(params: Any, pretrained: Any) -> Any:
  """Stacks pretrained blocks where the model loops over its own, and the reverse."""
  scanned = any("/blocks/" in name for name in _by_name(params))
  return stack_blocks(pretrained) if scanned else unstack_blocks(pretrained)


def _by_name(tree: Any) -> dict[str, Any]:
  return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
