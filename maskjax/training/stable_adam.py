"""The direction of StableAdamW's steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskjax.sharding import path_name


class StableAdamState(NamedTuple):
  """The state of `scale_by_stable_adam`.

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

  def init(params: optax.Params) -> StableAdamState:
    zeros = optax.tree.zeros_like(params)
    return StableAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

  def update(
    updates: optax.Updates, state: StableAdamState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, StableAdamState]:
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
    return found, StableAdamState(done, mu, nu)

  return optax.GradientTransformation(init, update)
