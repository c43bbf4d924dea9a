"""Optimizers, with the hyperparameters that the papers' tables list."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.schedules import check_sizes, learning_rates, weight_decays
from maskjax.sharding import path_name
from maskjax.training.directions import (
  scale_by_stable_adam,
  scale_by_uncorrected_adam,
)

__all__ = ["adamw", "lamb", "sgd", "stable_adamw"]

NO_DECAY = r"(bias|scale)$"

# A parameter of `block_3` of a network, or of all its blocks where they are stacked.
BLOCK = re.compile(r"(?P<network>.*)/block(s|_(?P<one>\d+))/")
# One of `stage_1_block_3` of a network in stages, and one between two stages.
STAGED = re.compile(r"(?P<network>.*)/stage_(?P<stage>\d+)_(block|norm)_(?P<one>\d+)/")
BETWEEN = re.compile(
  r"(?P<network>.*)/(?P<kind>merging|reduce)_(?P<stage>\d+)(_norm)?/"
)
# One of an encoder that stands before its blocks.
BELOW = re.compile(
  r"(?P<network>.*encoder(/network)?)/"
  r"(embed|cls|positions|registers|tokens|types|mask_token|stem)(_norm)?(/|$)"
)


def adamw(
  *,
  learning_rate: float,
  num_steps: int,
  b1: float = 0.9,
  b2: float = 0.95,
  epsilon: float = 1e-8,
  bias_correction: bool = True,
  weight_decay: float = 0.05,
  final_weight_decay: float | None = None,
  fully_decoupled: bool = False,
  no_decay: str = NO_DECAY,
  decay_factors: Mapping[str, float] | None = None,
  clip_norm: float = 0.0,
  clip_each: float = 0.0,
  layer_decay: float = 1.0,
  layer_blocks: Sequence[int] = (),
  factors: Mapping[str, float] | None = None,
  state_dtype: str = "float32",
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  schedule: str = "cosine",
  counts_warmup: bool = False,
  drop_at: int = 0,
  cycles: int = 1,
) -> optax.GradientTransformation:
  """AdamW.

  Args:
    learning_rate: peak of the schedule, see
      `maskjax.schedules.learning_rates`.
    num_steps: steps of the whole run.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    bias_correction: of the moments, see `scale_by_uncorrected_adam` for how it is
      without.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    final_weight_decay: at the end of a cosine schedule; None keeps it constant.
    fully_decoupled: multiply the decay by the share of the peak that the learning rate
      has, and not by the rate itself, as MosaicML's `DecoupledAdamW` does.
    no_decay: regular expression, found in the paths of parameters without decay.
    decay_factors: of the weight decay, by regular expressions for the paths of
      parameters; the first that is found in a path applies, before `no_decay`.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    clip_each: largest norm of the gradient of each parameter by itself, as DINO's
      authors clip; 0 does not clip.
    layer_decay: factor of the learning rate from each block to the one below.
    layer_blocks: of a network in stages, how many blocks of each stage have one rate;
      each its own when empty.
    factors: of the learning rate, by regular expressions for the paths of parameters;
      the first that is found in a path applies.
    state_dtype: `float32`, or `bfloat16` to halve the memory of the moments, see
      `in_bfloat16`.
    warmup_steps: see `learning_rates`.
    initial_learning_rate: see `learning_rates`.
    final_learning_rate: see `learning_rates`.
    schedule: see `learning_rates`.
    counts_warmup: see `learning_rates`.
    drop_at: see `learning_rates`.
    cycles: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  if state_dtype not in ("float32", "bfloat16"):
    raise UserError(
      f"optimizer.state_dtype={state_dtype!r}: expected 'float32' or 'bfloat16'"
    )
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
    schedule=schedule,
    counts_warmup=counts_warmup,
    drop_at=drop_at,
    cycles=cycles,
  )
  if fully_decoupled:
    weight_decay, final_weight_decay = _by_peak(
      learning_rate, weight_decay, final_weight_decay
    )
  decay = weight_decays(weight_decay, final_weight_decay, num_steps)
  decays = functools.partial(_decays, no_decay)
  moments = {"b1": b1, "b2": b2, "eps": epsilon}
  if bias_correction and not decay_factors:
    adam = optax.adamw(rates, **moments, weight_decay=decay, mask=decays)
  else:
    adam = optax.chain(
      optax.scale_by_adam(**moments)
      if bias_correction
      else scale_by_uncorrected_adam(b1=b1, b2=b2, epsilon=epsilon),
      add_decays(decay, decay_factors, no_decay)
      if decay_factors
      else optax.add_decayed_weights(decay, decays),
      optax.scale_by_learning_rate(rates),
    )
  parts = [clip_each_norm(clip_each)] if clip_each else []
  parts += _clipping(clip_norm)
  parts.append(in_bfloat16(adam) if state_dtype == "bfloat16" else adam)
  if layer_decay != 1:
    parts.append(scale_by_layer(layer_decay, layer_blocks))
  if factors:
    parts.append(scale_by_path(factors))
  return optax.chain(*parts)


def stable_adamw(
  *,
  learning_rate: float,
  num_steps: int,
  b1: float = 0.9,
  b2: float = 0.99,
  epsilon: float = 1e-6,
  weight_decay: float = 0.01,
  fully_decoupled: bool = False,
  no_decay: str = NO_DECAY,
  clip_norm: float = 0.0,
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  schedule: str = "cosine",
) -> optax.GradientTransformation:
  """StableAdamW: Adam whose steps shorten where a gradient is suddenly large.

  https://arxiv.org/abs/2304.13013, algorithm 2, which ModernBERT is trained by.

  Args:
    learning_rate: peak of the schedule, see `maskjax.schedules.learning_rates`.
    num_steps: steps of the whole run.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment; see `scale_by_stable_adam`.
    weight_decay: factor of a parameter that is added to its update.
    fully_decoupled: see `adamw`.
    no_decay: regular expression, found in the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    warmup_steps: see `learning_rates`.
    initial_learning_rate: see `learning_rates`.
    final_learning_rate: see `learning_rates`.
    schedule: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
    schedule=schedule,
  )
  check_sizes(weight_decay=weight_decay)
  if fully_decoupled:
    weight_decay, _ = _by_peak(learning_rate, weight_decay, None)
  return optax.chain(
    *_clipping(clip_norm),
    scale_by_stable_adam(
      b1=b1,
      b2=b2,
      epsilon=epsilon,
      weight_decay=weight_decay,
      decays=functools.partial(_decays, no_decay),
    ),
    optax.scale_by_learning_rate(rates),
  )


def lamb(
  *,
  learning_rate: float,
  num_steps: int,
  b1: float = 0.9,
  b2: float = 0.999,
  epsilon: float = 1e-6,
  weight_decay: float = 0.01,
  final_weight_decay: float | None = None,
  no_decay: str = NO_DECAY,
  clip_norm: float = 0.0,
  bias_correction: bool = True,
  scale_all: bool = False,
  layer_decay: float = 1.0,
  layer_blocks: Sequence[int] = (),
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  """LAMB.

  The update of each array, decay included, is scaled to the norm of the array
  (https://arxiv.org/abs/1904.00962, algorithm 2). Arrays without decay are updated as
  by Adam.

  Args:
    learning_rate: peak of the schedule.
    num_steps: steps of the whole run.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    weight_decay: factor of a parameter that is added to its update.
    final_weight_decay: at the end of a cosine schedule; None keeps it constant.
    no_decay: regular expression, found in the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    bias_correction: whether the moments are means of what they have seen so far, as
      Adam's are.
    scale_all: scale the updates of arrays without decay too.
    layer_decay: see `adamw`.
    layer_blocks: see `adamw`.
    warmup_steps: see `maskjax.schedules.learning_rates`.
    initial_learning_rate: see `learning_rates`.
    final_learning_rate: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
  )
  decays = functools.partial(_decays, no_decay)
  decay = weight_decays(weight_decay, final_weight_decay, num_steps)
  parts = [*_clipping(clip_norm), optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)]
  if not bias_correction:
    parts.append(optax.scale_by_schedule(functools.partial(_uncorrected, b1, b2)))
  parts.append(optax.add_decayed_weights(decay, mask=decays))
  ratio = optax.scale_by_trust_ratio()
  parts.append(ratio if scale_all else optax.masked(ratio, decays))
  parts.append(optax.scale_by_learning_rate(rates))
  if layer_decay != 1:
    parts.append(scale_by_layer(layer_decay, layer_blocks))
  return optax.chain(*parts)


def _uncorrected(b1: float, b2: float, count: Any) -> Any:
  """What Adam's update is to be multiplied by to be that of moments as they are."""
  steps = count + 1
  return (1 - b1**steps) / jnp.sqrt(1 - b2**steps)


def sgd(
  *,
  learning_rate: float,
  num_steps: int,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 1e-4,
  no_decay: str = NO_DECAY,
  clip_norm: float = 0.0,
  warmup_steps: int = 0,
  final_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  """Gradient descent with momentum.

  Args:
    learning_rate: peak of the schedule.
    num_steps: steps of the whole run.
    momentum: decay of the sum of gradients.
    nesterov: whether to use Nesterov momentum.
    weight_decay: factor of a parameter that is added to its gradient.
    no_decay: regular expression, found in the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    warmup_steps: see `maskjax.schedules.learning_rates`.
    final_learning_rate: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    final_learning_rate=final_learning_rate,
  )
  decay = weight_decays(weight_decay, None, num_steps)
  return optax.chain(
    *_clipping(clip_norm),
    optax.add_decayed_weights(decay, functools.partial(_decays, no_decay)),
    optax.sgd(rates, momentum=momentum, nesterov=nesterov),
  )


def _clipping(norm: float) -> list[optax.GradientTransformation]:
  check_sizes(clip_norm=norm)
  return [optax.clip_by_global_norm(norm)] if norm else []


def _by_peak(
  peak: float, first: float, last: float | None
) -> tuple[float, float | None]:
  """Decays which, times the learning rate, are these where the rate is at its peak."""
  if not peak:
    raise UserError(
      "optimizer.fully_decoupled=True: expected a learning_rate above 0, of which the "
      "decay follows the share"
    )
  return first / peak, None if last is None else last / peak


def _decays(no_decay: str, params: Any) -> Any:
  """Which arrays decay: False where the expression is found in the path."""
  return jax.tree.map_with_path(
    lambda path, _: re.search(no_decay, path_name(path)) is None, params
  )


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


def scale_by_layer(
  decay: float, stage_blocks: Sequence[int] = ()
) -> optax.GradientTransformation:
  """Layer-wise learning-rate decay (https://arxiv.org/abs/2003.10555).

  Args:
    decay: factor from each layer to the one below; a layer is a block, or several of a
      stage. Parameters before the blocks are one layer below the first; those after the
      blocks keep the full rate. What makes a grid coarser between two stages is of the
      upper stage's first layer, but of a Swin of the lower stage's last, as their
      authors have it.
    stage_blocks: of networks in stages, how many blocks of each stage are one layer;
      each its own when empty.

  Raises:
    UserError: at the first step, if the model has no blocks, or another number of
      stages.
  """

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    depths = _depths(
      {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(updates)}
    )
    if not depths:
      raise UserError(
        f"optimizer.layer_decay={decay}: expected a model with transformer blocks, or "
        "with stages"
      )
    # The first layer of each stage of each network, and last of all their number.
    first = {
      name: _first_layers(stages, stage_blocks) for name, stages in depths.items()
    }

    def one(path: tuple, update: jax.Array) -> jax.Array:
      name = path_name(path)
      if (found := STAGED.match(name)) or (found := BETWEEN.match(name)):
        layers, stage = first[found["network"]], int(found["stage"])
        if "one" not in found.groupdict():
          layer = layers[stage] - (found["kind"] == "merging")
        else:
          of_layer = stage_blocks[stage] if stage_blocks else 1
          layer = layers[stage] + int(found["one"]) // of_layer
        return update * decay ** (layers[-1] - layer)
      if block := BLOCK.match(name):
        (depth,) = depths[block["network"]]
        if block["one"] is not None:
          return update * decay ** (depth - int(block["one"]))
        factors = decay ** (depth - jnp.arange(depth, dtype=jnp.float32))
        return update * factors.reshape(-1, *[1] * (update.ndim - 1))
      if below := BELOW.match(name):
        network = below["network"]
        if above := first.get(f"{network}/transformer", first.get(network)):
          return update * decay ** above[-1]
      return update

    return jax.tree.map_with_path(one, updates)

  return optax.stateless(scale)


def _depths(arrays: Mapping[str, Any]) -> dict[str, list[int]]:
  """How many blocks each network has: one number, or one for each of its stages."""
  blocks: dict[str, dict[int, int]] = {}
  for name, leaf in arrays.items():
    if found := STAGED.match(name):
      stage, count = int(found["stage"]), int(found["one"]) + 1
    elif found := BLOCK.match(name):
      stage, count = 0, leaf.shape[0] if found["one"] is None else int(found["one"]) + 1
    else:
      continue
    stages = blocks.setdefault(found["network"], {})
    stages[stage] = max(count, stages.get(stage, 0))
  return {name: [stages[s] for s in sorted(stages)] for name, stages in blocks.items()}


def _first_layers(depths: Sequence[int], stage_blocks: Sequence[int]) -> list[int]:
  """The number of the first layer of each stage, from 1 on, and of what follows.

  Example:
    >>> _first_layers([3, 4, 6, 3], [3, 2, 3, 3])
    [1, 2, 4, 6, 7]
  """
  if stage_blocks and len(stage_blocks) != len(depths):
    raise UserError(
      f"optimizer.layer_blocks={tuple(stage_blocks)}: expected one for each of "
      f"{len(depths)} stages"
    )
  layers = [1]
  for stage, depth in enumerate(depths):
    of_layer = stage_blocks[stage] if stage_blocks else 1
    layers.append(layers[-1] + -(-depth // of_layer))
  return layers
