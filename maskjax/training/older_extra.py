"""The `extra` of checkpoints that older versions wrote, read as that of today.

It differed in three ways: objectives counted their own steps, MSLM's counts of masked
tokens had another name, and a frozen teacher was its parameters alone.
"""

from collections.abc import Mapping
from typing import Any

import jax

from maskjax.objectives.objective import Variables

COUNTER = "step"  # today each call is given its number
NAMES = {"masked": "hidden"}  # by today's, what entries were called


def as_stored(like: Any, stored: Any) -> Any:
  """What to ask Orbax for.

  Args:
    like: shapes of today's `extra`.
    stored: Orbax's metadata of what a checkpoint has.

  Returns:
    `like`, or where an older version wrote the checkpoint, shapes of its entries.
  """
  if not isinstance(like, Mapping):
    return like
  stored = dict(stored)
  asked = {}
  for name, its in like.items():
    old = _name(name, stored)
    asked[old] = its.params if _is_bare(its, stored.get(old)) else its
  if COUNTER in stored and COUNTER not in like and jax.tree.leaves(like):
    counter, leaf = stored[COUNTER], jax.tree.leaves(like)[0]
    sharding = leaf.sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
      sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    asked[COUNTER] = jax.ShapeDtypeStruct(
      counter.shape, counter.dtype, sharding=sharding
    )
  return asked


def as_today(like: Any, read: Any) -> Any:
  """What was read for `as_stored(like, ...)`, as today's `extra`."""
  if not isinstance(like, Mapping):
    return read
  found = {}
  for name, its in like.items():
    value = read[_name(name, read)]
    is_bare = isinstance(its, Variables) and not isinstance(value, Variables)
    found[name] = Variables(value, its.extra) if is_bare else value
  return found


def _name(name: str, entries: Any) -> str:
  """What an entry is called where older versions may have written it."""
  old = NAMES.get(name, name)
  return old if old in entries and name not in entries else name


def _is_bare(its: Any, stored: Any) -> bool:
  """Whether parameters alone are stored for what are `Variables` today."""
  return (
    isinstance(its, Variables)
    and not jax.tree.leaves(its.extra)
    and isinstance(stored, Mapping)
    and "params" not in stored
  )
