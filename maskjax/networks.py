"""Which network of a run is evaluated and handed on: `config.eval.network`.

Some papers' numbers are of the student as it trained, some of its average
(`config.ema_decay`), and some of the objective's own teacher.
"""

from typing import Any

from ml_collections import ConfigDict

from maskjax.errors import UserError, did_you_mean
from maskjax.objectives import Variables
from maskjax.objectives.abilities import abilities_of, needed
from maskjax.training.checkpoints import Checkpoints
from maskjax.training.step import TrainState

# The empty name is the average where the run keeps one, else the student.
NETWORKS = ("", "student", "averaged", "teacher")


def check(config: ConfigDict, objective: Any) -> None:
  """Raises a `UserError` where a config names a network that its run will not have."""
  name = config.eval.get("network", "")
  if name not in NETWORKS:
    hint = did_you_mean(str(name), NETWORKS[1:])
    raise UserError(f"config.eval.network={name!r}: {hint}")
  if name == "averaged" and not config.ema_decay:
    raise UserError(
      "config.eval.network='averaged': expected config.ema_decay above 0, or 'student'"
    )
  if name == "teacher":
    found = abilities_of(objective).teacher_variables
    needed(found, objective, "teacher_variables", "config.eval.network='teacher'")


def of_state(config: ConfigDict, objective: Any, state: TrainState) -> Variables:
  """The variables of the network that a config names, of a run's state."""
  name = config.eval.get("network", "")
  average = state.ema is not None and name in ("", "averaged")
  variables = Variables(state.ema if average else state.params, state.extra)
  return _teacher(objective, variables) if name == "teacher" else variables


def stored(
  config: ConfigDict, objective: Any, checkpoints: Checkpoints, step: int | None = None
) -> tuple[int, Any]:
  """Reads the parameters of the network that a config names from a checkpoint.

  Args:
    config: of the run.
    objective: of the run.
    checkpoints: of the run's workdir.
    step: which checkpoint; the newest when None.

  Returns:
    The step, and the parameters as NumPy arrays.

  Raises:
    UserError: there is no such checkpoint, or no such network in it.
  """
  name = config.eval.get("network", "")
  items = {"student": "params", "averaged": "ema", "teacher": "params"}
  step, params = checkpoints.restore_weights(step, item=items.get(name))
  if name == "teacher":
    extra = checkpoints.restore_extra_entries(step, ["teacher"])
    # Imported weights have no teacher beside them.
    params = _teacher(objective, Variables(params, extra)).params if extra else params
  return step, params


def _teacher(objective: Any, variables: Variables) -> Variables:
  found = abilities_of(objective).teacher_variables
  return needed(found, objective, "teacher_variables", "eval.network='teacher'")(
    variables
  )
