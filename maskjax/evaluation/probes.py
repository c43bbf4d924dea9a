"""Probes of an encoder, beside the same encoder untrained and beside the pixels."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax import Array
from jax.sharding import Mesh

from maskjax import resolve
from maskjax.errors import UserError
from maskjax.evaluation import knn, linear
from maskjax.evaluation.features import Batch, Batches, pooled_features

# `linear` has converged. `lars`, MAE's recipe, and `plain` stop before, and read the
# directions alone in which the features vary most.
PROBES: dict[str, Callable[..., float]] = {
  "knn": knn.knn_accuracy,
  "linear": linear.linear_probe_accuracy,
  "lars": linear.lars_probe_accuracy,
  "plain": functools.partial(linear.linear_probe_accuracy, steps=30),
}

Scores = dict[str, dict[str, float]]


def run_probes(
  objective: Any,
  variants: Mapping[str, Any],
  train: Batches,
  test: Batches,
  *,
  mesh: Mesh,
  probes: Sequence[str] = ("knn", "linear"),
) -> Scores:
  """Probes several sets of variables, and the inputs themselves.

  Args:
    objective: has `features(variables, batch)`.
    variants: variables by name, for example `trained` and `untrained`.
    train: labeled data that the probes learn from, see `evaluation_batches`.
    test: labeled data on which their accuracy is taken.
    mesh: the devices.
    probes: names in `PROBES`.

  Returns:
    Accuracies by variant (and `raw pixels`) and probe, from 0 to 1.

  Raises:
    UserError: no such probe.
  """
  for name in probes:
    if name not in PROBES:
      raise UserError(f"no probe {name!r}: {resolve.did_you_mean(name, PROBES)}")

  def pixels(_: Any, batch: Batch) -> Array:
    return batch["image"].reshape(len(batch["image"]), -1)

  encoded = pooled_features(objective.features, mesh)
  rows = {name: (encoded, variables) for name, variables in variants.items()}
  rows["raw pixels"] = (pooled_features(pixels, mesh), None)
  scores: Scores = {}
  for row, (read, variables) in rows.items():
    of_train, of_test = read(variables, train), read(variables, test)
    scores[row] = {name: PROBES[name](*of_train, *of_test) for name in probes}
  return scores


def probe_table(scores: Scores) -> str:
  """Writes scores as a table for people, in percent.

  Example:
    >>> print(probe_table({"trained": {"knn": 0.5, "linear": 0.75}}))
    encoder         knn  linear
    trained        50.0    75.0
  """
  names = list(next(iter(scores.values())))
  lines = [f"{'encoder':<11}" + "".join(f"{name:>8}" for name in names)]
  for row, values in scores.items():
    numbers = "".join(f"{100 * values[name]:>8.1f}" for name in names)
    lines.append(f"{row:<11}" + numbers)
  return "\n".join(lines)
