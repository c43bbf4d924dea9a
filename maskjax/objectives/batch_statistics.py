"""Networks that normalize by their batch: what their objectives do for them.

A training step normalizes by the statistics of its own batch. Whatever is not a step
normalizes by running averages: the entry `statistics` of an objective's `extra`.
"""

from collections.abc import Mapping
from typing import Any

from jax import Array

from maskjax.models.convolution import running
from maskjax.objectives.objective import Variables


def init(model: Any, key: Array, *inputs: Any) -> Variables:
  """Makes a model's parameters, and its running averages as `extra`."""
  made = model.init(key, *inputs)
  if "statistics" not in made:
    return Variables(made["params"])
  return Variables(made["params"], {"statistics": made["statistics"]})


def apply(
  model: Any, params: Any, *inputs: Any, rngs: dict[str, Array] | None = None
) -> tuple[Any, dict[str, Any]]:
  """Runs a model on a batch that it normalizes by.

  Returns:
    The model's outputs, and the `sums` of the `Loss`.
  """
  return model.apply({"params": params}, *inputs, mutable=["moments"], rngs=rngs)


def update(variables: Variables, sums: Mapping[str, Any]) -> Variables:
  """Moves the running averages toward the statistics of a step's batch."""
  if "moments" not in sums:
    return variables
  statistics = running(variables.extra["statistics"], sums["moments"])
  return variables._replace(extra={**variables.extra, "statistics": statistics})
