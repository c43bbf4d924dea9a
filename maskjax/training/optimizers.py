"""Optimizers as the papers' tables write them."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.sharding import path_name

__all__ = ["adamw"]

# A parameter of `block_3` of a network, or of all its blocks where they are stacked.
BLOCK = re.compile(r"(?P<network>.*)/block(s|_(?P<one>\d+))/")


def adamw(
  *,
  learning_rate: float,
  num_steps: int,
  warmup_steps: int = 0,
  final_learning_rate: float = 0.0,
  cycles: int = 1,
  b1: float = 0.9,
  b2: float = 0.95,
  epsilon: float = 1e-8,
  weight_decay: float = 0.05,
  no_decay: str = r"(bias|scale)$",
  clip_norm: float = 0.0,
  layer_decay: float = 1.0,
  state_dtype: str = "float32",
) -> optax.GradientTransformation:
  """AdamW with a linear warm-up and a cosine to the end.

  Args:
    learning_rate: its peak, after the warm-up.
    num_steps: steps until the cosine ends.
    warmup_steps: steps over which the rate rises from 0.
    final_learning_rate: where the cosine ends.
    cycles: how often the steps are run through from the warm-up on, for systems that
      begin anew; divides `num_steps`.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    no_decay: regular expression for the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 never clips.
    layer_decay: factor of the learning rate from each block to the one below.
    state_dtype: `float32`, or `bfloat16` to halve the memory of the moments, see
      `in_bfloat16`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  if cycles < 1 or num_steps % cycles:
    raise UserError(
      f"optimizer.cycles={cycles}: expected a divisor of num_steps={num_steps}"
    )
  period = num_steps // cycles
  if num_steps < 1 or not 0 <= warmup_steps < period:
    raise UserError(
      f"optimizer.warmup_steps={warmup_steps}: expected at least 0 and fewer than "
      f"num_steps={num_steps}" + (f" / cycles={cycles}" if cycles > 1 else "")
    )
  if learning_rate < 0 or weight_decay < 0 or clip_norm < 0:
    raise UserError(
      f"optimizer.learning_rate={learning_rate}, weight_decay={weight_decay}, "
      f"clip_norm={clip_norm}: expected none below 0"
    )
  if state_dtype not in ("float32", "bfloat16"):
    raise UserError(
      f"optimizer.state_dtype={state_dtype!r}: expected 'float32' or 'bfloat16'"
    )
  cycle = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=learning_rate,
    warmup_steps=warmup_steps,
    decay_steps=period,
    end_value=final_learning_rate,
  )

  def schedule(step: Any) -> Any:
    return cycle(step if cycles == 1 else step % period)

  def decays(params: Any) -> Any:
    return jax.tree.map_with_path(
      lambda path, _: re.search(no_decay, path_name(path)) is None, params
    )

  parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  adam = optax.adamw(
    schedule, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay, mask=decays
  )
  parts.append(in_bfloat16(adam) if state_dtype == "bfloat16" else adam)
  if layer_decay != 1:
    parts.append(scale_by_layer(layer_decay))
  return optax.chain(*parts)


class RoundedState(NamedTuple):
  """The state of `in_bfloat16`.

  Attributes:
    updates: int32 scalar, how many were done; the random numbers follow from it.
    inner: the other optimizer's state, in bfloat16 where it was float32.
  """

  updates: jax.Array
  inner: Any


def in_bfloat16(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Keeps the float32 arrays of an optimizer's state in bfloat16 between steps.

  They are rounded at random, see `round_at_random`: rounded to nearest, a second
  moment whose decay is above 0.998 would never move.

  Args:
    optimizer: computes in float32 as before.
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
  """Rounds to one of the two nearest bfloat16 numbers, so that the mean is kept.

  Args:
    key: of the random numbers.
    x: float32 [...].

  Returns:
    bfloat16 [...]: the upper neighbour with the probability that makes `x` the mean.

  Example:
    >>> x = jnp.full(1000, 1 + 2**-9)  # a quarter of the way from 1 to 1 + 2**-7
    >>> float(round_at_random(jax.random.key(0), x).astype(jnp.float32).mean() - 1 > 0)
    1.0
  """
  # bfloat16 is the upper half of float32: adding random numbers to the lower half
  # carries as often as it should.
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  carried = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
  upper = (carried >> 16).astype(jnp.uint16)
  rounded = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
  return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))


def scale_by_layer(decay: float) -> optax.GradientTransformation:
  """Layer-wise learning-rate decay (https://arxiv.org/abs/2003.10555).

  Args:
    decay: factor from each block to the one below. What stands before the blocks
      is one layer below the first, what stands after them keeps the full rate.
  """

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    depths: dict[str, int] = {}  # blocks by the network that holds them
    for path, leaf in jax.tree.leaves_with_path(updates):
      if block := BLOCK.match(path_name(path)):
        blocks = leaf.shape[0] if block["one"] is None else int(block["one"]) + 1
        depths[block["network"]] = max(blocks, depths.get(block["network"], 0))
    if not depths:
      raise UserError(
        f"optimizer.layer_decay={decay}: expected a model with transformer blocks"
      )

    def one(path: tuple, update: jax.Array) -> jax.Array:
      name = path_name(path)
      if block := BLOCK.match(name):
        depth = depths[block["network"]]
        if block["one"] is not None:
          return update * decay ** (depth - int(block["one"]))
        factors = decay ** (depth - jnp.arange(depth, dtype=jnp.float32))
        return update * factors.reshape(-1, *[1] * (update.ndim - 1))
      if below := re.match(r"(.*encoder/)(embed|cls)", name):
        return update * decay ** (depths[f"{below[1]}transformer"] + 1)
      return update

    return jax.tree.map_with_path(one, updates)

  return optax.stateless(scale)
