"""Directions of steps that optax has not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskjax.sharding import path_name


class MomentsState(NamedTuple):
  """The state of the transformations below.

  Attributes:
    done: int32 scalar, the number of updates.
    mu: the first moments.
    nu: the second moments.
  """

  done: jax.Array
  mu: optax.Updates
  nu: optax.Updates


def scale_by_stable_adam(
  *,
  b1: float,
  b2: float,
  epsilon: float,
  weight_decay: float,
  decays: Callable[[Any], Any],
) -> optax.GradientTransformation:
  """Adam and its decay, divided where a gradient is large for its second moment.

  The step of each array, its decay included, is divided by the root mean square of its
  gradient over the root of the second moment, where that is above 1, as Adafactor's is
  (https://arxiv.org/abs/2304.13013, algorithm 2). The arrays of stacked blocks are
  those of each block.

  Args:
    b1: decay of the first moment, which approaches it from 0, so that the moments need
      no correction of their bias.
    b2: decay of the second moment, likewise.
    epsilon: added to the root of the second moment; its square is what the second
      moment is at least in the division above.
    weight_decay: factor of a parameter that is added to its update.
    decays: from parameters to a tree that is False at those without decay.
  """

  def update(
    updates: optax.Updates, state: MomentsState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, MomentsState]:
    done = state.done + 1
    now = done.astype(jnp.float32)

    def moment(decay: float, power: int) -> Callable[..., jax.Array]:
      rising = 1 - (1 - decay) / (1 - decay**now)
      return lambda old, grad: rising * old + (1 - rising) * grad**power

    mu = jax.tree.map(moment(b1, 1), state.mu, updates)
    nu = jax.tree.map(moment(b2, 2), state.nu, updates)

    def step(
      path: tuple, grad: jax.Array, mu: jax.Array, nu: jax.Array, p: Any, decay: bool
    ) -> jax.Array:
      first = 1 if "/blocks/" in path_name(path) else 0
      axes = tuple(range(first, grad.ndim))
      surprise = jnp.square(grad) / jnp.maximum(nu, epsilon**2)
      rms = jnp.sqrt(surprise.mean(axis=axes, keepdims=True))
      direction = mu / (jnp.sqrt(nu) + epsilon)
      direction = direction + weight_decay * p if decay else direction
      return direction / jnp.maximum(rms, 1)

    found = jax.tree.map_with_path(step, updates, mu, nu, params, decays(params))
    return found, MomentsState(done, mu, nu)

  return optax.GradientTransformation(_no_moments, update)


def scale_by_uncorrected_adam(
  *, b1: float, b2: float, epsilon: float
) -> optax.GradientTransformation:
  """Adam whose moments are not corrected for beginning at 0, as BERT's code has it.

  https://github.com/google-research/bert, `AdamWeightDecayOptimizer`: where b2 is above
  b1, first steps are too long, which its warm-up makes up for.

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
  """

  def update(
    updates: optax.Updates, state: MomentsState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, MomentsState]:
    del params
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, updates)
    found = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
    return found, MomentsState(state.done + 1, mu, nu)

  return optax.GradientTransformation(_no_moments, update)


def _no_moments(params: optax.Params) -> MomentsState:
  zeros = optax.tree.zeros_like(params)
  return MomentsState(jnp.zeros((), jnp.int32), zeros, zeros)
