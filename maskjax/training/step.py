"""The state of a run, and the training step that updates it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from maskjax import keys, schedules, sharding
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.objectives import Batch, Objective, Step, Variables, abilities_of
from maskjax.objectives.objective import valid

Metrics = Mapping[str, Mean]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """The state that a run saves; all else follows from the config and the step.

  Attributes:
    step: int32 scalar, optimizer steps done.
    params: what the optimizer changes.
    extra: what the objective itself changes.
    opt_state: the optimizer's state.
    ema: exponential moving average of the parameters; None without one.
  """

  step: Array
  params: Any
  extra: Any
  opt_state: Any
  ema: Any = None

  @property
  def variables(self) -> Variables:
    """What the objective has learned, as it trains."""
    return Variables(self.params, self.extra)


def init_state(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  batch: Batch,
  key: Array,
  *,
  ema: bool = False,
) -> TrainState:
  """The state before the first step.

  Args:
    objective: the system.
    optimizer: changes the parameters.
    batch: of the shape that will be trained on.
    key: the run's key.
    ema: whether to keep an average of the parameters.
  """
  params, extra = objective.init(keys.named(key, "init"), batch)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    extra=extra,
    opt_state=optimizer.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
  )


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  key: Array,
  num_steps: int,
  microbatches: int = 1,
  batch_warmup: tuple[int, int] = (0, 0),
  ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
  """One optimizer step; pure, to be compiled by the caller.

  Args:
    state: before the step.
    batch: arrays [B, ...].
    objective: the system.
    optimizer: changes the parameters.
    key: the run's key.
    num_steps: optimizer steps of the whole run.
    microbatches: parts of the batch that are computed one after the other. Sums,
      weights and gradients are added up and divided once.
    batch_warmup: how many rows of the batch count in the first step, and in how many
      steps this rises to all, along a line; (0, 0) for all from the first step on. The
      other rows are read and computed, and passed over, so that no shape changes.
    ema_decay: of the average of the parameters; 0 keeps none.

  Returns:
    The state after the step, and `loss`, `grad_norm` and the objective's metrics.
  """
  step_key = jax.random.fold_in(keys.named(key, "train"), state.step)
  step = Step(step_key, state.step, num_steps)
  rows = len(next(iter(batch.values())))
  batch = {"index": jnp.arange(rows), **batch}
  if any(batch_warmup):
    count = rows_that_count(batch_warmup, rows, state.step)
    batch = {**batch, "valid": valid(batch) & (jnp.arange(rows) < count)}

  def loss_sum(params: Any, part: Batch) -> tuple[Array, Loss]:
    loss = objective.loss(Variables(params, state.extra), part, step)
    return loss.sum, jax.lax.stop_gradient(loss)

  def gradient(part: Batch) -> tuple[Loss, Any]:
    (_, loss), grads = jax.value_and_grad(loss_sum, has_aux=True)(state.params, part)
    return loss, grads

  if microbatches == 1:
    loss, grads = gradient(batch)
  else:
    # Row r goes to part r % microbatches, so that each device splits its own rows:
    # [B, ...] -> [B / microbatches, microbatches, ...] -> [microbatches, ...]
    parts = jax.tree.map(
      lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch
    )
    first = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradient, first)
    )
    (loss, grads), _ = jax.lax.scan(
      lambda total, part: (jax.tree.map(jnp.add, total, gradient(part)), None),
      zero,
      parts,
    )
  scale = 1 / jnp.where(loss.weight == 0, 1, loss.weight)
  grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)

  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  variables = Variables(optax.apply_updates(state.params, updates), state.extra)
  update = abilities_of(objective).update
  if update is not None:
    variables = update(variables, batch, step, loss.sums)
  params, extra = variables
  ema = state.ema
  if ema is not None:
    ema = optax.incremental_update(params, ema, 1 - ema_decay)
  metrics = {
    **loss.means(),
    "grad_norm": Mean(optax.tree.norm(grads), jnp.float32(1)),
  }
  return (
    TrainState(
      step=state.step + 1, params=params, extra=extra, opt_state=opt_state, ema=ema
    ),
    metrics,
  )


def rows_that_count(warmup: tuple[int, int], rows: int, step: Array | int) -> Array:
  """How many rows of a batch count in a step of a warm-up of the batch.

  Args:
    warmup: how many in the first step, and in how many steps all do.
    rows: of the batch.
    step: number of the step, from 0.

  Raises:
    UserError: more rows at first than the batch has, or none, or no steps.

  Example:
    >>> [int(rows_that_count((4, 10), 24, step)) for step in (0, 1, 5, 10, 99)]
    [4, 6, 14, 24, 24]
  """
  first, steps = warmup
  if not (1 <= first <= rows and steps >= 1):
    raise UserError(
      f"batch_warmup={(first, steps)}: expected from 1 to {rows} rows, the batch, and "
      "at least 1 step"
    )
  share = schedules.ramp(step, steps)
  return jnp.floor(schedules.linear(first, rows, share) + 1e-3).astype(jnp.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A run's first state and its step, ready to be compiled for a mesh.

  Attributes:
    state: shapes and shardings of the state.
    init: jitted, from a batch and the run's key to the first state.
    step: jitted, from a state, which it uses up, and a batch to the next state
      and what to report.
  """

  state: TrainState
  init: jax.stages.Wrapped
  step: jax.stages.Wrapped


def program(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  batch: Batch,
  key: Array,
  *,
  num_steps: int,
  mesh: Mesh,
  rules: sharding.Rules = sharding.TRANSFORMER_RULES,
  microbatches: int = 1,
  batch_warmup: tuple[int, int] = (0, 0),
  ema_decay: float = 0.0,
) -> Program:
  """Makes what a run compiles: on this machine's devices, or planned for others.

  Args:
    objective: the system.
    optimizer: changes the parameters.
    batch: arrays [B, ...], or their shapes.
    key: the run's key.
    num_steps: optimizer steps of the whole run.
    mesh: the devices.
    rules: which parameters lie where, see `maskjax.sharding.shardings`.
    microbatches: see `train_step`.
    batch_warmup: see `train_step`.
    ema_decay: see `train_step`.
  """
  make = functools.partial(init_state, objective, optimizer, ema=bool(ema_decay))
  shapes = jax.eval_shape(make, batch, key)
  placed = sharding.shardings(shapes, mesh, rules)
  step = functools.partial(
    train_step,
    objective=objective,
    optimizer=optimizer,
    key=key,
    num_steps=num_steps,
    microbatches=microbatches,
    batch_warmup=batch_warmup,
    ema_decay=ema_decay,
  )
  return Program(
    state=jax.tree.map(
      lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
      shapes,
      placed,
    ),
    init=jax.jit(make, out_shardings=placed),
    step=jax.jit(step, donate_argnums=0, out_shardings=(placed, None)),
  )
