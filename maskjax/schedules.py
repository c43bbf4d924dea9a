"""Numbers that change over a run: mask ratios, weights, temperatures, decays, rates.

All take the share of the way that is done, from 0 to 1, so that none counts steps. The
share itself is `Step.progress`, or `ramp` of a part of the run.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError, did_you_mean

Schedule = Callable[[Array | float, Array | float, Array | float], Array]


def ramp(step: Array | int, num_steps: int, *, start: int = 0) -> Array:
  """Which share of `num_steps` steps from `start` on is done at a step, in [0, 1].

  Example:
    >>> [float(ramp(step, 4, start=2)) for step in (0, 3, 9)]
    [0.0, 0.25, 1.0]
  """
  return jnp.clip((step - start) / max(1, num_steps), 0, 1)


def linear(first: Array | float, last: Array | float, done: Array | float) -> Array:
  """From `first` to `last` along a line.

  Example:
    >>> float(linear(0.5, 1.0, 0.5))
    0.75
  """
  return first + (last - first) * jnp.asarray(done)


def cosine(first: Array | float, last: Array | float, done: Array | float) -> Array:
  """From `first` to `last` along half a cosine, slowly at both ends.

  Example:
    >>> print(round(float(cosine(0.0, 1.0, 0.5)), 4))
    0.5
  """
  return first + (last - first) * ((1 - jnp.cos(jnp.pi * jnp.asarray(done))) / 2)


def constant(first: Array | float, last: Array | float, done: Array | float) -> Array:
  """`first`, all the way.

  Example:
    >>> float(constant(0.5, 1.0, 0.9))
    0.5
  """
  del last
  return jnp.full_like(jnp.asarray(done, jnp.float32), first)


SHAPES: dict[str, Schedule] = {
  "constant": constant,
  "cosine": cosine,
  "linear": linear,
}


def find(key: str, shape: str) -> Schedule:
  """Finds a schedule by name.

  Args:
    key: the hyperparameter that names it, for the message.
    shape: a name in `SHAPES`.

  Raises:
    UserError: no such schedule; names the nearest.
  """
  if shape not in SHAPES:
    raise UserError(f"{key}={shape!r}: {did_you_mean(str(shape), SHAPES)}")
  return SHAPES[shape]
