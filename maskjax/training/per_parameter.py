"""Decays, factors and clipping of parameters, found by their paths."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.schedules import check_sizes
from maskjax.sharding import path_name
from maskjax.training.layer_decay import BLOCK


def decays(no_decay: str) -> Callable[[Any], Any]:
  """From parameters to which of them decay.

  Args:
    no_decay: regular expression, found in the paths of those that do not.

  Example:
    >>> decays("bias$")({"dense": {"kernel": 0.1, "bias": 0.2}})
    {'dense': {'bias': False, 'kernel': True}}
  """

  def of(params: Any) -> Any:
    return jax.tree.map_with_path(
      lambda path, _: re.search(no_decay, path_name(path)) is None, params
    )

  return of


class DecayState(NamedTuple):
  """The state of `add_decays`.

  Attributes:
    updates: int32 scalar, the number of updates, which a schedule of decays takes.
  """

  updates: jax.Array


def add_decays(
  decay: float | optax.Schedule, factors: Mapping[str, float], no_decay: str
) -> optax.GradientTransformation:
  """Adds parameters times their weight decay to their updates.

  Args:
    decay: of all parameters, or a schedule of it.
    factors: see `adamw`.
    no_decay: see `adamw`.

  Raises:
    UserError: at the first step, if an expression is found in no path.
  """

  def init(params: Any) -> DecayState:
    del params
    return DecayState(jnp.zeros([], jnp.int32))

  def update(
    updates: Any, state: DecayState, params: Any = None
  ) -> tuple[Any, DecayState]:
    now = decay(state.updates) if callable(decay) else decay
    _check_found("decay_factors", factors, params)

    def one(path: tuple, update: jax.Array, parameter: jax.Array) -> jax.Array:
      name = path_name(path)
      rest = 0.0 if re.search(no_decay, name) else 1.0
      return update + _first_found(factors, name, rest) * now * parameter

    decayed = jax.tree.map_with_path(one, updates, params)
    return decayed, DecayState(optax.safe_increment(state.updates))

  return optax.GradientTransformation(init, update)


def clip_each_norm(most: float) -> optax.GradientTransformation:
  """Shrinks the gradient of each parameter to a norm, where it is above.

  Of blocks that are stacked, each block's parameters are ones by themselves.

  Args:
    most: the norm.

  Raises:
    UserError: it is below 0.
  """
  check_sizes(clip_each=most)

  def clip(updates: Any, params: Any = None) -> Any:
    del params

    def one(path: tuple, update: jax.Array) -> jax.Array:
      found = BLOCK.match(path_name(path))
      stacked = found is not None and found["one"] is None
      axes = tuple(range(1 if stacked else 0, update.ndim))
      norm = jnp.sqrt(jnp.square(update).sum(axis=axes, keepdims=True))
      return update * jnp.minimum(1, most / (norm + 1e-6))

    return jax.tree.map_with_path(one, updates)

  return optax.stateless(clip)


def _first_found(factors: Mapping[str, float], name: str, rest: float) -> float:
  """The factor of the first expression that is found in a path, or `rest`."""
  found = (factor for pattern, factor in factors.items() if re.search(pattern, name))
  return next(found, rest)


def _check_found(key: str, factors: Mapping[str, float], params: Any) -> None:
  """Raises a `UserError` for an expression that is found in no path."""
  names = [path_name(path) for path, _ in jax.tree.leaves_with_path(params)]
  for pattern in factors:
    if not any(re.search(pattern, name) for name in names):
      raise UserError(
        f"optimizer.{key}: {pattern!r} is in the path of no parameter: expected a "
        f"part of one, such as {names[0]!r}"
      )


def scale_by_path(factors: Mapping[str, float]) -> optax.GradientTransformation:
  """Multiplies the learning rate of some parameters.

  Args:
    factors: see `adamw`.

  Raises:
    UserError: at the first step, if an expression is found in no path.
  """

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    _check_found("factors", factors, updates)

    def one(path: tuple, update: jax.Array) -> jax.Array:
      return update * _first_found(factors, path_name(path), 1.0)

    return jax.tree.map_with_path(one, updates)

  return optax.stateless(scale)
