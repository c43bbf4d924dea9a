"""Random keys that depend on what they are for, and on nothing else.

A run has one key. Everything random folds into it the name of its purpose, the
step, and the number of the example in its source, so that no number depends on
the batch split, on the devices, or on whether the run was interrupted.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array


def named(key: Array, name: str) -> Array:
  """The key of a purpose, for example `"mask"`.

  Example:
    >>> key = jax.random.key(0)
    >>> bool(named(key, "mask") == named(key, "init"))
    False
  """
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def example_keys(key: Array, batch: Mapping[str, Array]) -> Array:
  """One key for each example of a batch: keys [B].

  Args:
    key: the purpose's key, with the step folded in.
    batch: its `index`, int [B], holds each example's number in its source. A
      batch without one counts its rows.
  """
  if "index" in batch:
    index = batch["index"]
  else:
    index = jnp.arange(len(next(iter(batch.values()))))
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
