"""Networks that normalize by their batch: what their objectives do for them.

A step normalizes by the statistics of its own batch. Whatever is not a step normalizes
by running averages, which are an objective's `extra`; `features` and `reconstruct` are
therefore given `Variables` in place of parameters (`reads_extra`).
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


def train(
  model: Any, params: Any, *inputs: Any, rngs: dict[str, Array] | None = None
) -> tuple[Any, dict[str, Any]]:
  """Runs a model on a batch whose statistics it takes.

  Returns:
    What the model gives, and the `sums` of the `Loss`.
  """
  return model.apply({"params": params}, *inputs, mutable=["moments"], rngs=rngs)


def update(extra: Any, sums: Mapping[str, Any]) -> Any:
  """Moves the running averages toward the statistics of a step's batch."""
  if "moments" not in sums:
    return extra
  return {**extra, "statistics": running(extra["statistics"], sums["moments"])}
