"""The objective's own loss on data that it was not trained on."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from maskjax import keys
from maskjax.evaluation.features import Batches, evaluation_batches
from maskjax.losses import Mean, squared_error
from maskjax.objectives import Objective


def held_out_loss(
  objective: Objective,
  params: Any,
  extra: Any,
  batches: Batches,
  *,
  key: Array,
  mesh: Mesh,
) -> dict[str, float]:
  """Loss and metrics over a data set, under masks that the key alone decides.

  Args:
    objective: its `evaluate` is used where it has one, else its `loss`.
    params: the parameters to judge.
    extra: the objective's other variables.
    batches: see `maskjax.evaluation.features.evaluation_batches`.
    key: the run's key.
    mesh: the devices.

  Returns:
    `loss` and the objective's metrics by name.
  """
  key = keys.named(key, "eval")
  judge = getattr(objective, "evaluate", objective.loss)

  def means(params: Any, extra: Any, batch: Mapping[str, Array]) -> dict[str, Mean]:
    loss = judge(params, extra, batch, key)
    return {"loss": Mean(loss.sum, loss.weight), **loss.metrics}

  compute = jax.jit(means)
  total: Any = None
  with jax.set_mesh(mesh):
    for batch in evaluation_batches(batches, mesh):
      part = compute(params, extra, batch)
      total = part if total is None else jax.tree.map(jnp.add, total, part)
  return {name: float(mean.value()) for name, mean in total.items()}


def mean_target_loss(
  objective: Any, train: Batches, test: Batches, *, key: Array, mesh: Mesh
) -> float:
  """The held-out loss of predicting, at each place, the mean target there.

  The number that a loss on masked tokens has to be compared with.

  Args:
    objective: has `targets(batch)` and `mask(batch, key)`; its `error` of each token
      is used where it has one, else the squared error.
    train: data whose targets are averaged, see `evaluation_batches`.
    test: data on which the loss is taken, under the masks of `held_out_loss`.
    key: the run's key.
    mesh: the devices.
  """
  key = keys.named(key, "eval")
  error = getattr(objective, "error", squared_error)

  def add_targets(batch: Mapping[str, Array]) -> Mean:
    where = batch["valid"][:, None, None]
    targets = objective.targets(batch)
    return Mean(jnp.where(where, targets, 0).sum(axis=0), where.sum(dtype=jnp.float32))

  def add_errors(batch: Mapping[str, Array], mean: Array) -> Mean:
    targets = objective.targets(batch)
    errors = error(jnp.broadcast_to(mean, targets.shape), targets)
    where = objective.mask(batch, key).masked & batch["valid"][:, None]
    return Mean.of(errors, where)

  def total(function: Callable[..., Mean], data: Batches, *more: Array) -> Array:
    compute, sum_ = jax.jit(function), None
    with jax.set_mesh(mesh):
      for batch in evaluation_batches(data, mesh):
        part = compute(batch, *more)
        sum_ = part if sum_ is None else sum_ + part
    assert sum_ is not None
    return sum_.value()

  return float(total(add_errors, test, total(add_targets, train)))
