"""State of optimizers in bfloat16."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class RoundedState(NamedTuple):
  """The state of `in_bfloat16`.

  Attributes:
    updates: int32 scalar, the number of updates, from which random keys are derived.
    inner: the wrapped optimizer's state, with bfloat16 in place of float32.
  """

  updates: jax.Array
  inner: Any


def in_bfloat16(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Keeps the float32 arrays of an optimizer's state in bfloat16 between steps.

  They are rounded at random, see `round_at_random`: if they were rounded to nearest, a
  second moment whose decay is above 0.998 would never change.

  Args:
    optimizer: still computes in float32.
  """

  def is_float32(leaf: Any) -> bool:
    return jnp.asarray(leaf).dtype == jnp.float32

  def init(params: Any) -> RoundedState:
    inner = jax.tree.map(
      lambda leaf: leaf.astype(jnp.bfloat16) if is_float32(leaf) else leaf,
      optimizer.init(params),
    )
    return RoundedState(jnp.zeros((), jnp.int32), inner)

  def update(
    updates: Any, state: RoundedState, params: Any = None
  ) -> tuple[Any, RoundedState]:
    full = jax.tree.map(
      lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf,
      state.inner,
    )
    updates, full = optimizer.update(updates, full, params)
    key = jax.random.fold_in(jax.random.key(0), state.updates)
    leaves, tree = jax.tree.flatten(full)
    rounded = [
      round_at_random(jax.random.fold_in(key, i), leaf) if is_float32(leaf) else leaf
      for i, leaf in enumerate(leaves)
    ]
    return updates, RoundedState(state.updates + 1, jax.tree.unflatten(tree, rounded))

  return optax.GradientTransformation(init, update)


def round_at_random(key: jax.Array, x: jax.Array) -> jax.Array:
  """Rounds to one of the two nearest bfloat16 numbers, without bias.

  Args:
    key: a random key.
    x: float32 [...].

  Returns:
    bfloat16 [...], whose expected value is `x`.

  Example:
    >>> x = jnp.full(1000, 1 + 2**-9)  # a quarter of the way from 1 to 1 + 2**-7
    >>> float(round_at_random(jax.random.key(0), x).astype(jnp.float32).mean() - 1 > 0)
    1.0
  """
  # bfloat16 is the upper half of float32: random bits added to the lower half carry
  # with the probability of rounding up.
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  carried = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
  upper = (carried >> 16).astype(jnp.uint16)
  rounded = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
  return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))
