"""The selections that samplers are made of: the highest scores of one example's tokens.

Every function returns bool [N], `True` where selected.
"""

import jax
import jax.numpy as jnp
from jax import Array


def highest(scores: Array, count: Array | int) -> Array:
  """Selects the `count` highest of scores [N]: bool [N].

  Example:
    >>> highest(jnp.array([0.1, 0.9, 0.5]), 2).tolist()
    [False, True, True]
  """
  rank = jnp.argsort(jnp.argsort(scores))
  return rank >= scores.shape[0] - count


def highest_where(scores: Array, where: Array, count: Array) -> Array:
  """Selects the highest scores of some tokens.

  Args:
    scores: float [N].
    where: bool [N], the tokens that may be selected.
    count: how many to select; all where there are fewer.

  Returns:
    bool [N].

  Example:
    >>> where = jnp.array([False, True, True])
    >>> highest_where(jnp.array([3.0, 1.0, 2.0]), where, 1).tolist()
    [False, False, True]
  """
  return where & highest(jnp.where(where, scores, -jnp.inf), count)


def highest_units(scores: Array, units: Array, count: Array) -> Array:
  """Selects whole units, such as words, by descending score.

  A unit with more tokens than are left to select is skipped.

  Args:
    scores: float [N], of unit `i` at index `i`; there are at most N units.
    units: int [N], the number of each token's unit; -1 for none.
    count: how many tokens to select at most.

  Returns:
    bool [N].

  Example:
    >>> units = jnp.array([0, 1, 1])
    >>> highest_units(jnp.array([0.5, 0.9, 0.1]), units, 1).tolist()
    [True, False, False]
  """
  sizes = jnp.zeros(units.shape, jnp.int32).at[units].add(units >= 0)
  order = jnp.argsort(-jnp.where(sizes > 0, scores, -jnp.inf))

  def take(left: Array, unit: Array) -> tuple[Array, Array]:
    fits = (sizes[unit] > 0) & (sizes[unit] <= left)
    return left - fits * sizes[unit], fits

  _, taken = jax.lax.scan(take, jnp.int32(count), order)
  selected = jnp.zeros(units.shape, bool).at[order].set(taken)
  return selected[units] & (units >= 0)
