"""Random keys that depend on purpose, step and example, and on nothing else.

A run has one key. Each use of randomness folds in the name of its purpose, the step,
and the example's index in its source. So no random number depends on how the batch is
split, on the devices, or on whether the run was interrupted.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array


def named(key: Array, name: str) -> Array:
  """Folds the name of a purpose into a key.

  Args:
    key: a typed key.
    name: of the purpose, for example `"mask"`; names that differ give independent
      keys.

  Returns:
    The purpose's key.

  Example:
    >>> key = jax.random.key(0)
    >>> bool(named(key, "mask") == named(key, "init"))
    False
  """
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def example_keys(key: Array, batch: Mapping[str, Array]) -> Array:
  """Makes one key for each example of a batch.

  Args:
    key: the purpose's key, with the step folded in.
    batch: arrays [B, ...]. Its `index`, int [B], is each example's number in its
      source; a batch without one numbers its rows.

  Returns:
    Keys [B].

  Example:
    >>> key, index = jax.random.key(0), jnp.array([7, 3])
    >>> keys = example_keys(key, {"index": index})
    >>> bool(keys[1] == example_keys(key, {"index": index[::-1]})[0])
    True
  """
  if "index" in batch:
    index = batch["index"]
  else:
    index = jnp.arange(len(next(iter(batch.values()))))
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
