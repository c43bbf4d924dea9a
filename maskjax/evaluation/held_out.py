"""The objective's own loss on data that it was not trained on."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from maskjax import keys
from maskjax.evaluation.features import Batches, evaluation_batches
from maskjax.losses import Mean
from maskjax.objectives import Step, Variables, abilities_of
from maskjax.objectives.abilities import needed


def held_out_loss(
  objective: Any,
  variables: Variables,
  batches: Batches,
  *,
  step: Step,
  mesh: Mesh,
) -> dict[str, float]:
  """Loss and metrics over a data set, under masks that the run's key alone decides.

  Args:
    objective: its `evaluate` is used where it has one, else its `loss`.
    variables: what is evaluated.
    batches: see `maskjax.evaluation.features.evaluation_batches`.
    step: the run's key, how many steps are done, and how many it has.
    mesh: the devices.

  Returns:
    `loss` and the objective's metrics by name.
  """
  found = abilities_of(objective).evaluate
  evaluate = needed(found, objective, "loss", "held-out data")

  def means(
    variables: Variables, batch: Mapping[str, Array], step: Step
  ) -> dict[str, Mean]:
    return evaluate(variables, batch, step).means()

  compute = jax.jit(means)
  step = evaluation_step(step)
  total: Any = None
  with jax.set_mesh(mesh):
    for batch in evaluation_batches(batches, mesh):
      part = compute(variables, batch, step)
      total = part if total is None else jax.tree.map(jnp.add, total, part)
  return {name: float(mean.value()) for name, mean in total.items()}


def evaluation_step(step: Step) -> Step:
  """A step of a run as evaluations see it: with a key that no training step has."""
  return dataclasses.replace(step, key=keys.named(step.key, "eval"))


def mean_target_loss(
  objective: Any, train: Batches, test: Batches, *, step: Step, mesh: Mesh
) -> float:
  """The held-out loss of predicting, at each position, the mean target there.

  The number that a loss on masked tokens has to be compared with.

  Args:
    objective: has targets, see `maskjax.objectives.abilities.HasTargets`.
    train: data whose targets are averaged, see `evaluation_batches`.
    test: data on which the loss is taken, under the masks of `held_out_loss`.
    step: see `held_out_loss`.
    mesh: the devices.
  """
  step = evaluation_step(step)
  find_targets = needed(
    abilities_of(objective).targets, objective, "targets", "their mean"
  )

  def add_targets(batch: Mapping[str, Array]) -> Mean:
    where = batch["valid"][:, None, None]
    targets = find_targets(batch)
    return Mean(jnp.where(where, targets, 0).sum(axis=0), where.sum(dtype=jnp.float32))

  def add_errors(batch: Mapping[str, Array], mean: Array) -> Mean:
    targets = find_targets(batch)
    errors = objective.error(jnp.broadcast_to(mean, targets.shape), targets)
    where = objective.mask(batch, step).masked & batch["valid"][:, None]
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
