"""Copies parameters from one model into another."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from maskjax.errors import UserError
from maskjax.models import stack_blocks, unstack_blocks
from maskjax.objectives.abilities import Adoption
from maskjax.sharding import path_name

ENCODER = "encoder/"  # how the paths of an encoder's parameters begin
# Of an encoder, but of no use where nothing is masked.
MASK_TOKEN = f"{ENCODER}mask_token"

Arrays = Mapping[str, Any]  # by path
Adopt = Callable[[Arrays, Arrays], Adoption]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
  """What a model begins with of another model's parameters; `transfer` makes it.

  Attributes:
    arrays: what is taken, by the model's own paths.
    left: paths of the other model's parameters that are not taken.
    new: paths of the model's parameters that stay as they were made.
  """

  arrays: Mapping[str, Any]
  left: tuple[str, ...]
  new: tuple[str, ...]

  def __call__(self, params: Any) -> Any:
    """The parameters, with pretrained arrays where there are such."""
    return jax.tree.map_with_path(
      lambda path, leaf: self.arrays.get(path_name(path), leaf), params
    )


def report(transfers: Mapping[str, Transfer]) -> list[str]:
  """What was taken, what was left, and what is new, a line each.

  Args:
    transfers: by part of a run's variables; paths of all but `params` begin with it.

  Example:
    >>> moved = Transfer(arrays={"encoder/a": 1}, left=("decoder/a",), new=("head/b",))
    >>> report({"params": moved})
    ['taken: encoder', 'left: decoder', 'new: head']
  """
  taken, left, new = [], [], []
  for part, moved in transfers.items():
    start = "" if part == "params" else f"{part}/"
    taken += [start + name for name in moved.arrays]
    left += [start + name for name in moved.left]
    new += [start + name for name in moved.new]
  lists = {"taken": (taken, new), "left": (left, taken), "new": (new, taken)}
  return [
    f"{name}: {', '.join(together(names, others)) or 'nothing'}"
    for name, (names, others) in lists.items()
  ]


def together(names: Iterable[str], others: Iterable[str]) -> list[str]:
  """The shortest beginnings of paths that none of the others has.

  Example:
    >>> together(["a/b/x", "a/b/y", "a/c", "d/x"], others=["a/e"])
    ['a/b', 'a/c', 'd']
  """
  apart = {
    "/".join(parts[:n])
    for parts in (name.split("/") for name in others)
    for n in range(1, len(parts) + 1)
  }
  found: dict[str, None] = {}
  for name in names:
    parts = name.split("/")
    starts = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    found[next((start for start in starts if start not in apart), name)] = None
  return sorted(found)


def same_paths(pretrained: Arrays, like: Arrays) -> Adoption:
  """Takes what both models have under the same path, see `Adoption`."""
  del like
  return Adoption({name: (name, array) for name, array in pretrained.items()})


def transfer(
  params: Any, *, pretrained: Any, adopt: Adopt = same_paths, source: str = "init_from"
) -> Transfer:
  """Finds out which pretrained parameters a model begins with.

  Args:
    params: of the new model, or their shapes.
    pretrained: of the old one.
    adopt: see `maskjax.objectives.abilities.Adopts`.
    source: where they come from, for messages.

  Raises:
    UserError: an array has another shape, not one was found, or a part of either
      model's encoder would be left out; names it.
  """
  own, old = by_path(params), by_path(_blocks_as_in(params, pretrained))
  adopted = adopt(old, own)
  arrays, used = {}, set()
  for name, (theirs, array) in adopted.taken.items():
    if name not in own:
      continue
    if np.shape(array) != own[name].shape:
      raise UserError(
        f"{source}: {theirs} has the shape {list(np.shape(array))}: "
        f"expected {list(own[name].shape)}"
      )
    arrays[name] = array
    used.add(theirs)
  if not arrays:
    raise UserError(
      f"{source}: none of its {len(old)} parameters is one of this model's "
      f"(expected for example {next(iter(own))})"
    )
  left = tuple(name for name in old if name not in used)
  new = tuple(name for name in own if name not in arrays)
  for names, known, complaint in (
    (left, adopted.left, "has no place in this encoder: expected one that has it"),
    (new, adopted.new, "is missing: expected all parameters of this encoder"),
  ):
    lost = [n for n in names if n.startswith(ENCODER) and n not in (*known, MASK_TOKEN)]
    if lost:
      more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
      raise UserError(f"{source}: {lost[0]}{more} {complaint}")
  return Transfer(arrays=arrays, left=left, new=new)


def check_same(params: Any, like: Any, source: str | Path) -> None:
  """Raises a `UserError` unless parameters have the names and shapes of others.

  Args:
    params: what was read.
    like: what the config's model has.
    source: where it was read from, for the message.
  """
  found, expected = by_path(params), by_path(like)
  for name in sorted({**found, **expected}):
    shapes = [list(d[name].shape) if name in d else "none" for d in (found, expected)]
    if shapes[0] != shapes[1]:
      raise UserError(
        f"{source} does not fit the config: parameter {name} has the shape "
        f"{shapes[0]}, expected {shapes[1]}"
      )


def _blocks_as_in(params: Any, pretrained: Any) -> Any:
  """Stacks pretrained blocks where the model loops over its own, and the reverse."""
  scanned = any("/blocks/" in name for name in by_path(params))
  return stack_blocks(pretrained) if scanned else unstack_blocks(pretrained)


def by_path(tree: Any) -> dict[str, Any]:
  """The arrays of a tree by their paths."""
  return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
