"""Teachers: networks whose features a student predicts.

A teacher's arrays are the entry `teacher` of the objective's `extra`. Systems have a
teacher as a field and call it where they need it:

- `extra = {"teacher": self.teacher.init(params, key, batch)}` in `init`,
- `self.teacher.features(own, extra["teacher"], batch)` in `loss`,
- `self.teacher.update(extra["teacher"], params, step)` in `update`.
"""

import abc
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys, resolve, schedules
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import Layers, VisionEncoder
from maskjax.objectives.abilities import RANDOM, abilities_of, needed
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.tokens import Patches

__all__ = ["bootstrap", "ema", "frozen"]

# What a student's own features would be under other variables.
Features = Callable[[Variables, Batch], Any]


class Teacher(Protocol):
  """What gives a student features to predict."""

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The run whose arrays it begins with, see `maskjax.objectives.abilities`."""

  def init(self, params: Any, key: Array, batch: Batch) -> Any:
    """Makes its arrays.

    Args:
      params: of the student, freshly made.
      key: for arrays of its own.
      batch: of the shape that will be trained on.
    """

  def features(self, own: Features, state: Any, batch: Batch) -> Any:
    """Features of whole examples, without gradients: [B, N, D].

    Args:
      own: the student's features under other variables. Teachers that are earlier
        students give what it gives, arrays of any kind.
      state: its arrays.
      batch: see `maskjax.objectives.Objective`.
    """

  def layers(
    self,
    student: Any,
    state: Any,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Layers:
    """Hidden states of its blocks, without gradients, see `models.encoder_layers`.

    Args:
      student: has `layers`, see `maskjax.objectives.abilities.HasLayers`.
      state: its arrays.
      batch: see `maskjax.objectives.Objective`.
      mask: which patches it must not see; none when None.
      depth: how many blocks to run; all when None.
      attention: whether to give the class token's attention in the last of them.

    Raises:
      UserError: its network has no layers to show; names it.
    """

  def update(self, state: Any, params: Any, step: Step) -> Any:
    """Its arrays after an optimizer step, given the student's parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PastStudent(abc.ABC):
  """What teachers have in common that are earlier states of the student.

  Attributes:
    parts: which of the student's modules the teacher needs for its features and
      layers; all when None.
  """

  parts: tuple[str, ...] | None = None

  @abc.abstractmethod
  def update(self, state: Any, params: Any, step: Step) -> Any:
    """See `Teacher`."""

  @property
  def pretrained(self) -> Mapping[str, str]:
    """None: it begins with the student."""
    return {}

  def init(self, params: Any, key: Array, batch: Batch) -> Any:
    """Begins as a copy of the student."""
    del key, batch
    return jax.tree.map(jnp.copy, self.of(params))

  def features(self, own: Features, state: Any, batch: Batch) -> Any:
    """See `Teacher`."""
    return jax.lax.stop_gradient(own(Variables(state), batch))

  def layers(
    self,
    student: Any,
    state: Any,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Layers:
    """See `Teacher`."""
    found = student.layers(
      Variables(state), batch, mask, depth=depth, attention=attention
    )
    return jax.lax.stop_gradient(found)

  def of(self, params: Any) -> Any:
    """Of the student's parameters, those of `parts`."""
    if self.parts is None:
      return params
    return {name: params[name] for name in self.parts}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema(PastStudent):
  """An exponential moving average of the student; `ema` makes it.

  Attributes:
    first: its decay at the first step after the warm-up.
    last: its decay in the end.
    schedule: the way there, see `maskjax.schedules`.
    num_steps: steps until the end; `share` of the run's when 0.
    share: of the run, until the end.
    warmup_steps: steps before the schedule, over which the decay falls from 1.
  """

  first: float
  last: float
  schedule: schedules.Schedule
  num_steps: int = 0
  share: float = 1.0
  warmup_steps: int = 0

  def update(self, state: Any, params: Any, step: Step) -> Any:
    """See `Teacher`."""
    return optax.incremental_update(self.of(params), state, 1 - self.decay(step))

  def decay(self, step: Step) -> Array:
    """The decay at a step: float32 scalar."""
    end = self.num_steps or math.ceil(self.share * step.num_steps)
    done = schedules.ramp(step.number, end - self.warmup_steps, start=self.warmup_steps)
    decay = self.schedule(self.first, self.last, done)
    left = 1 - schedules.ramp(step.number, self.warmup_steps)
    return decay + (1 - self.first) * left * (self.warmup_steps > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap(PastStudent):
  """The student as it was at the end of the stage before; `bootstrap` makes it.

  Attributes:
    stages: into how many equal stages the run is cut.
  """

  stages: int

  def update(self, state: Any, params: Any, step: Step) -> Any:
    """See `Teacher`."""
    ends, own = self.ends_stage(step), self.of(params)
    return jax.tree.map(lambda old, new: jnp.where(ends, new, old), state, own)

  def ends_stage(self, step: Step) -> Array:
    """Whether a stage ends with this step, and another one begins: bool.

    Raises:
      UserError: the run is not a whole number of stages long.
    """
    if step.num_steps % self.stages:
      raise UserError(
        f"num_steps={step.num_steps}: expected a multiple of objective.teacher.stages="
        f"{self.stages}"
      )
    done = jnp.asarray(step.number) + 1
    return (done % (step.num_steps // self.stages) == 0) & (done < step.num_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
  """Another objective's features under fixed variables; `frozen` makes it.

  Attributes:
    objective: has `init` and `features`.
    workdir: see `frozen`.
  """

  objective: Any
  workdir: str

  @property
  def pretrained(self) -> Mapping[str, str]:
    """See `Teacher`."""
    return {} if self.workdir == RANDOM else {"teacher": self.workdir}

  def init(self, params: Any, key: Array, batch: Batch) -> Variables:
    """Fresh variables, which those of `workdir` replace."""
    del params
    return self.objective.init(keys.named(key, "teacher"), batch)

  def features(self, own: Features, state: Any, batch: Batch) -> Any:
    """See `Teacher`."""
    del own
    return jax.lax.stop_gradient(self.objective.features(state, batch))

  def layers(
    self,
    student: Any,
    state: Any,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Layers:
    """See `Teacher`."""
    del student
    layers = abilities_of(self.objective).layers
    needed(layers, self.objective, "layers", "a student of its blocks")
    found = self.objective.layers(state, batch, mask, depth=depth, attention=attention)
    return jax.lax.stop_gradient(found)

  def update(self, state: Any, params: Any, step: Step) -> Any:
    """Changes nothing."""
    del params, step
    return state


def build(
  spec: str | Mapping[str, Any], *, parts: Sequence[str] | None = ("encoder",)
) -> Teacher:
  """Makes the teacher that a config names.

  Args:
    spec: a name in this module, or an import path, and its keywords.
    parts: which of the student's modules a teacher keeps that is an earlier student;
      all when None.

  Raises:
    UserError: there is no such teacher.
  """
  teacher = resolve.build(sys.modules[__name__], spec)
  if isinstance(teacher, PastStudent):
    kept = None if parts is None else tuple(parts)
    return dataclasses.replace(teacher, parts=kept)
  return teacher


def build_ema(
  spec: str | Mapping[str, Any], *, parts: Sequence[str] | None = None
) -> Ema:
  """As `build`, for a system that needs more of its teacher than a student's features.

  Raises:
    UserError: the spec names another one than `ema`.
  """
  teacher = build(spec, parts=parts)
  if not isinstance(teacher, Ema):
    name = spec if isinstance(spec, str) else spec["name"]
    raise UserError(
      f"teacher.name={name!r}: expected 'ema', since it does what its student does"
    )
  return teacher


def features_width(teacher: Teacher, encoder: VisionEncoder, patches: Patches) -> int:
  """How many channels a teacher's features have; computes none.

  Args:
    teacher: the teacher.
    encoder: the student's, whose own features are as wide as it is.
    patches: how the student sees a batch.

  Raises:
    UserError: they are not features of as many patches as the student sees.
  """

  def features(batch: Batch) -> Array:
    state = _any_state(teacher, batch)
    own = jnp.zeros((1, patches.length, encoder.width), encoder.dtype)
    return teacher.features(lambda *_: own, state, batch)

  shape = jax.eval_shape(features, patches.batch_shapes(1)).shape
  if len(shape) != 3 or shape[1] != patches.length:
    raise UserError(
      f"teacher gives features {list(shape[1:])} of an example: expected those of "
      f"{patches.length} patches"
    )
  return shape[-1]


def _any_state(teacher: Teacher, batch: Batch) -> Any:
  """Arrays of a teacher, of which only shapes are needed; no student is made."""
  if isinstance(teacher, PastStudent):
    return {}
  return teacher.init({}, jax.random.key(0), batch)


def layer_shapes(
  teacher: Teacher, encoder: VisionEncoder, patches: Patches, *, num_masked: int = 0
) -> list[tuple[int, ...]]:
  """The shapes of the hidden states of a teacher's blocks; computes nothing.

  Args:
    teacher: the teacher.
    encoder: the student's, with a class token.
    patches: how the student sees a batch.
    num_masked: how many patches the teacher must not see.
  """
  count = patches.length
  own = jnp.zeros((1, 1 + count - num_masked, encoder.width), encoder.dtype)

  class Student:
    def layers(self, *_: Any, **__: Any) -> Layers:
      return Layers([own] * encoder.depth)

  def layers(batch: Batch) -> Layers:
    masked = jnp.arange(count)[None] < num_masked
    mask = Mask.exactly(masked, num_masked=num_masked) if num_masked else None
    state = _any_state(teacher, batch)
    return teacher.layers(Student(), state, batch, mask)

  found = jax.eval_shape(layers, patches.batch_shapes(1))
  return [tokens.shape for tokens in found.tokens]


def bootstrap(*, stages: int = 2) -> Bootstrap:
  """Makes a teacher that the student replaces at the end of each stage.

  Args:
    stages: into how many equal stages the run is cut.

  Example:
    >>> steps = [Step(None, number, num_steps=6) for number in range(6)]
    >>> [bool(bootstrap(stages=2).ends_stage(step)) for step in steps]
    [False, False, True, False, False, False]
  """
  if stages < 1:
    raise UserError(f"teacher.stages={stages}: expected at least 1")
  return Bootstrap(stages=stages)


def ema(
  *,
  decay: float = 0.996,
  last: float | None = None,
  shape: str = "cosine",
  num_steps: int = 0,
  share: float = 1.0,
  warmup_steps: int = 0,
) -> Ema:
  """Makes a teacher that follows the student.

  Args:
    decay: of the average at the first step after the warm-up.
    last: in the end, and from there on; `decay` when None.
    shape: the way there, a name in `maskjax.schedules.SHAPES`.
    num_steps: steps until `last` is reached; `share` of the run's when 0.
    share: of the run, until `last` is reached.
    warmup_steps: steps before that, over which the decay falls from 1.

  Raises:
    UserError: names the keyword that is out of range.

  Example:
    >>> teacher = ema(decay=0.5, last=1.0, shape="linear")
    >>> float(teacher.decay(Step(None, number=5, num_steps=10)))
    0.75
  """
  for key, value in (("decay", decay), ("last", decay if last is None else last)):
    if not 0 <= value <= 1:
      raise UserError(f"teacher.{key}={value}: expected a number from 0 to 1")
  if not 0 < share <= 1:
    raise UserError(f"teacher.share={share}: expected above 0 and at most 1")
  if warmup_steps < 0 or 0 < num_steps <= warmup_steps:
    raise UserError(
      f"teacher.warmup_steps={warmup_steps}: expected at least 0 and fewer than "
      f"num_steps={num_steps}"
    )
  return Ema(
    first=decay,
    last=decay if last is None else last,
    schedule=schedules.find("teacher.shape", shape),
    num_steps=num_steps,
    share=share,
    warmup_steps=warmup_steps,
  )


def frozen(*, objective: Mapping[str, Any], workdir: str = "") -> Frozen:
  """Makes a teacher that does not learn.

  Args:
    objective: `name` and keywords of an objective with `features`, as a config has
      them; it is given the student's examples.
    workdir: of its run, or of weights that `maskjax convert` imported; a run without
      one does not start. "random" leaves its variables as they are made.

  Raises:
    UserError: the objective has no features.
  """
  from maskjax import objectives

  teacher = resolve.build(objectives, objective)
  if abilities_of(teacher).features is None:
    raise UserError(
      f"teacher.objective.name={objective['name']!r} has no features: expected one "
      "that has"
    )
  return Frozen(objective=teacher, workdir=workdir)
