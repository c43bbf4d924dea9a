"""Teachers: networks whose features a system predicts.

A teacher's arrays are an entry of the objective's `extra`. Its `features` are what the
objective asks it for, with those arrays in place of parameters.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import resolve
from maskjax.errors import UserError
from maskjax.objectives.objective import Batch

__all__ = ["ema", "frozen"]


class Teacher(Protocol):
  """What gives an objective features to predict."""

  @property
  def workdir(self) -> str:
    """The run whose parameters it begins with; none when empty."""

  def init(self, params: Any, key: Array, batch: Batch) -> Any:
    """Makes its arrays.

    Args:
      params: of the student, freshly made.
      key: for arrays of its own.
      batch: of the shape that will be trained on.
    """

  def features(
    self, of_student: Callable[[Any, Batch], Array], state: Any, batch: Batch
  ) -> Array:
    """Features of whole images: [B, N, D], without gradients.

    Args:
      of_student: what a student's own features would be under other parameters.
      state: its arrays.
      batch: see `maskjax.objectives.Objective`.
    """

  def update(self, state: Any, params: Any, step: Array) -> Any:
    """Its arrays after an optimizer step, given the student's parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema:
  """An exponential moving average of the student; `ema` makes it.

  Attributes:
    first: its decay at the first step.
    last: its decay at `num_steps`, to which it rises along a cosine or a line.
    num_steps: steps of the schedule; 0 for a constant `first`.
    shape: `cosine` or `linear`.
    warmup_steps: steps before the schedule, over which it falls from 1 to `first`.
  """

  first: float
  last: float
  num_steps: int
  shape: str
  warmup_steps: int = 0

  workdir = ""

  def init(self, params: Any, key: Array, batch: Batch) -> Any:
    """Begins as a copy of the student."""
    del key, batch
    return jax.tree.map(jnp.copy, params)

  def features(
    self, of_student: Callable[[Any, Batch], Array], state: Any, batch: Batch
  ) -> Array:
    """See `Teacher`."""
    return jax.lax.stop_gradient(of_student(state, batch))

  def update(self, state: Any, params: Any, step: Array) -> Any:
    """See `Teacher`."""
    return optax.incremental_update(params, state, 1 - self.decay(step))

  def decay(self, step: Array) -> Array:
    """The decay at a step, float32."""
    done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
    done = jnp.clip(done, 0, 1)
    if self.shape == "cosine":
      done = (1 - jnp.cos(jnp.pi * done)) / 2
    decay = self.first + (self.last - self.first) * done
    left = jnp.clip(1 - step / max(1, self.warmup_steps), 0, 1)
    return decay + (1 - self.first) * left * (self.warmup_steps > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
  """Another objective's features under fixed parameters; `frozen` makes it.

  Attributes:
    objective: has `init` and `features`.
    workdir: of its run, or of imported weights; when empty, its parameters stay as
      they were made.
  """

  objective: Any
  workdir: str

  def init(self, params: Any, key: Array, batch: Batch) -> Any:
    """Fresh parameters, into whose place those of `workdir` come."""
    del params
    return self.objective.init(key, batch).params

  def features(
    self, of_student: Callable[[Any, Batch], Array], state: Any, batch: Batch
  ) -> Array:
    """See `Teacher`."""
    del of_student
    return jax.lax.stop_gradient(self.objective.features(state, batch))

  def update(self, state: Any, params: Any, step: Array) -> Any:
    """Changes nothing."""
    del params, step
    return state


def ema(
  *,
  decay: float = 0.996,
  last: float | None = None,
  num_steps: int = 0,
  shape: str = "cosine",
  warmup_steps: int = 0,
) -> Ema:
  """Makes a teacher that follows the student.

  Args:
    decay: of the average at the first step after the warm-up.
    last: at step `num_steps`, and from there on; `decay` when None.
    num_steps: steps until `last` is reached.
    shape: `cosine` or `linear`, the way there.
    warmup_steps: steps before that, over which the decay falls from 1.

  Example:
    >>> float(ema(decay=0.5, last=1.0, num_steps=10, shape="linear").decay(5))
    0.75
  """
  for key, value in (("decay", decay), ("last", decay if last is None else last)):
    if not 0 <= value <= 1:
      raise UserError(f"teacher.{key}={value}: expected a number from 0 to 1")
  if shape not in ("cosine", "linear"):
    raise UserError(f"teacher.shape={shape!r}: expected 'cosine' or 'linear'")
  if last is not None and num_steps < 1:
    raise UserError(f"teacher.num_steps={num_steps}: expected the run's, for `last`")
  if warmup_steps < 0 or 0 < num_steps <= warmup_steps:
    raise UserError(
      f"teacher.warmup_steps={warmup_steps}: expected at least 0 and fewer than "
      f"num_steps={num_steps}"
    )
  last = decay if last is None else last
  return Ema(
    first=decay,
    last=last,
    num_steps=num_steps,
    shape=shape,
    warmup_steps=warmup_steps,
  )


def frozen(*, objective: Mapping[str, Any], workdir: str = "") -> Frozen:
  """Makes a teacher that does not learn.

  Args:
    objective: `name` and keywords of an objective with `features`, as a config has
      them; it is given the student's images.
    workdir: of its run, or of weights that `maskjax convert` imported; when empty, its
      parameters are random ones.
  """
  from maskjax import objectives

  teacher = resolve.build(objectives, objective)
  if not hasattr(teacher, "features"):
    raise UserError(
      f"teacher.objective.name={objective['name']!r} has no features: expected one "
      "that has"
    )
  return Frozen(objective=teacher, workdir=workdir)
