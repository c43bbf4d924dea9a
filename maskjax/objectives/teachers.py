"""Teachers: networks whose features a system predicts.

A teacher's arrays are an entry of the objective's `extra`. Its `features` are what the
objective asks it for, with those arrays in place of parameters; its `layers`, what few
systems ask for, only networks of blocks have.
"""

import abc
import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import resolve
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import Layers, VisionEncoder
from maskjax.objectives.images import image_batch_shapes
from maskjax.objectives.objective import Batch, readable

__all__ = ["bootstrap", "ema", "frozen"]


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

  def layers(
    self,
    student: Any,
    state: Any,
    batch: Batch,
    mask: Mask | None = None,
    **asked: Any,
  ) -> Layers:
    """What its blocks say, without gradients; see `maskjax.models.encoder_layers`.

    Args:
      student: has `layers`, see `maskjax.objectives.images.ImageObjective`.
      state: its arrays.
      batch: see `maskjax.objectives.Objective`.
      mask: which patches it must not see; none when None.
      **asked: `depth` and `attention`.

    Raises:
      UserError: its network has no layers to show; names it.
    """

  def update(self, state: Any, params: Any, step: Array) -> Any:
    """Its arrays after an optimizer step, given the student's parameters."""


class PastStudent(abc.ABC):
  """What teachers have in common that are earlier states of the student."""

  workdir = ""

  @abc.abstractmethod
  def update(self, state: Any, params: Any, step: Array) -> Any:
    """See `Teacher`."""

  def init(self, params: Any, key: Array, batch: Batch) -> Any:
    """Begins as a copy of the student."""
    del key, batch
    return jax.tree.map(jnp.copy, params)

  def features(
    self, of_student: Callable[[Any, Batch], Any], state: Any, batch: Batch
  ) -> Any:
    """See `Teacher`; arrays of any kind that a student can give."""
    return jax.lax.stop_gradient(of_student(state, batch))

  def layers(
    self,
    student: Any,
    state: Any,
    batch: Batch,
    mask: Mask | None = None,
    **asked: Any,
  ) -> Layers:
    """See `Teacher`."""
    return jax.lax.stop_gradient(student.layers(state, batch, mask, **asked))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema(PastStudent):
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
class Bootstrap(PastStudent):
  """The student as it was at the end of the stage before; `bootstrap` makes it.

  Attributes:
    stages: into how many equal stages the run is cut.
    num_steps: the run's steps.
  """

  stages: int
  num_steps: int

  def update(self, state: Any, params: Any, step: Array) -> Any:
    """See `Teacher`."""
    ends = self.ends_stage(step)
    return jax.tree.map(lambda old, new: jnp.where(ends, new, old), state, params)

  def ends_stage(self, step: Array) -> Array:
    """Whether a stage ends with this step, and another one begins: bool."""
    done = step + 1
    return (done % (self.num_steps // self.stages) == 0) & (done < self.num_steps)


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
    return readable(self.objective, self.objective.init(key, batch))

  def features(
    self, of_student: Callable[[Any, Batch], Array], state: Any, batch: Batch
  ) -> Array:
    """See `Teacher`."""
    del of_student
    return jax.lax.stop_gradient(self.objective.features(state, batch))

  def layers(
    self,
    student: Any,
    state: Any,
    batch: Batch,
    mask: Mask | None = None,
    **asked: Any,
  ) -> Layers:
    """See `Teacher`."""
    del student
    if not hasattr(self.objective, "layers"):
      raise UserError(
        f"teacher.objective: {type(self.objective).__name__} has features, but no "
        "layers: expected a vision transformer, whose blocks can be asked one by one"
      )
    return jax.lax.stop_gradient(self.objective.layers(state, batch, mask, **asked))

  def update(self, state: Any, params: Any, step: Array) -> Any:
    """Changes nothing."""
    del params, step
    return state


def features_width(
  teacher: Teacher, encoder: VisionEncoder, patch_size: tuple[int, int], channels: int
) -> int:
  """How many channels a teacher's features have; computes none.

  Args:
    teacher: the teacher.
    encoder: the student's, whose own features are as wide as it is.
    patch_size: (height, width) in pixels.
    channels: values a pixel.

  Raises:
    UserError: they are not features of as many patches as the student sees.
  """
  count = encoder.grid[0] * encoder.grid[1]

  def features(batch: Batch) -> Array:
    state = teacher.init((), jax.random.key(0), batch)
    own = jnp.zeros((1, count, encoder.width), encoder.dtype)
    return teacher.features(lambda *_: own, state, batch)

  shape = jax.eval_shape(features, _one(encoder, patch_size, channels)).shape
  if len(shape) != 3 or shape[1] != count:
    raise UserError(
      f"teacher gives features {list(shape[1:])} of an image: expected those of "
      f"{count} patches"
    )
  return shape[-1]


def layer_shapes(
  teacher: Teacher,
  encoder: VisionEncoder,
  patch_size: tuple[int, int],
  channels: int,
  *,
  num_masked: int = 0,
) -> list[tuple[int, ...]]:
  """The shapes of what a teacher's blocks say of an image; computes nothing.

  Args:
    teacher: the teacher.
    encoder: the student's, with a class token.
    patch_size: (height, width) in pixels.
    channels: values a pixel.
    num_masked: how many patches the teacher must not see.
  """
  count = encoder.grid[0] * encoder.grid[1]
  own = jnp.zeros((1, 1 + count - num_masked, encoder.width), encoder.dtype)

  class Student:
    def layers(self, *_: Any, **__: Any) -> Layers:
      return Layers([own] * encoder.depth)

  def layers(batch: Batch) -> Layers:
    masked = jnp.arange(count)[None] < num_masked
    mask = Mask.exactly(masked, num_masked=num_masked) if num_masked else None
    state = teacher.init((), jax.random.key(0), batch)
    return teacher.layers(Student(), state, batch, mask)

  said = jax.eval_shape(layers, _one(encoder, patch_size, channels))
  return [tokens.shape for tokens in said.tokens]


def _one(
  encoder: VisionEncoder, patch_size: tuple[int, int], channels: int
) -> dict[str, jax.ShapeDtypeStruct]:
  values = patch_size[0] * patch_size[1] * channels
  return image_batch_shapes(1, encoder.grid, patch_size, values)


def bootstrap(*, stages: int = 2, num_steps: int) -> Bootstrap:
  """Makes a teacher that takes the student's place at the end of each stage.

  Args:
    stages: into how many equal stages the run is cut.
    num_steps: the run's steps, a multiple of `stages`.

  Example:
    >>> teacher = bootstrap(stages=2, num_steps=6)
    >>> [bool(teacher.ends_stage(jnp.int32(step))) for step in range(6)]
    [False, False, True, False, False, False]
  """
  if stages < 1:
    raise UserError(f"teacher.stages={stages}: expected at least 1")
  if num_steps < stages or num_steps % stages:
    raise UserError(
      f"teacher.num_steps={num_steps}: expected the run's, a multiple of "
      f"teacher.stages={stages}"
    )
  return Bootstrap(stages=stages, num_steps=num_steps)


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


def average(spec: str | Mapping[str, Any]) -> Ema:
  """Builds a teacher for a system that asks it for more than a student's features.

  Raises:
    UserError: the spec names another one than `ema`.
  """
  teacher = resolve.build(sys.modules[__name__], spec)
  if not isinstance(teacher, Ema):
    name = spec if isinstance(spec, str) else spec["name"]
    raise UserError(
      f"teacher.name={name!r}: expected 'ema', since it does what its student does"
    )
  return teacher
