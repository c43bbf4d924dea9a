"""Mask, encode, predict what a teacher sees in the whole image."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.objectives.images import ImageObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.teachers import Teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taught(ImageObjective):
  """A system with a teacher; each adds its `loss`.

  `extra` holds the `teacher`, and, where a system put it there, the `step`: how many
  have been done.

  Attributes:
    teacher: see `maskjax.objectives.teachers`.
    followed: which of the model's parts a teacher sees that is an earlier student:
      those that its features and layers need.
  """

  teacher: Teacher
  followed: tuple[str, ...] = ("encoder",)

  @property
  def pretrained(self) -> dict[str, str]:
    """See `maskjax.objectives.Objective`."""
    return {"teacher": self.teacher.workdir} if self.teacher.workdir else {}

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_model(key, batch)
    return Variables(params, {"teacher": self.init_teacher(params, key, batch)})

  def init_teacher(self, params: Any, key: Array, batch: Batch) -> Any:
    """The teacher's arrays, given the student's parameters."""
    return self.teacher.init(self.pupil(params), keys.named(key, "teacher"), batch)

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """Lets the teacher follow, where it does."""
    del sums
    follow = self.teacher.update(extra["teacher"], self.pupil(params), step)
    count = {"step": jnp.int32(step + 1)} if "step" in extra else {}
    return {**extra, "teacher": follow, **count}

  def pupil(self, params: Any) -> dict[str, Any]:
    """Of the student's parameters, those that are `followed`."""
    return {name: params[name] for name in self.followed}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(Taught):
  """Predicts a teacher's features of whole images at the masked patches.

  Each system adds what its own features are, for teachers that are earlier states of
  the student.

  Attributes:
    normalize: of features [B, N, T], before they are compared.
    error: of each token, from two [B, M, T] to [B, M].
  """

  normalize: Callable[[Array], Array]
  error: Callable[[Array, Array], Array]

  @abc.abstractmethod
  def own_features(self, student: Any, batch: Batch) -> Array:
    """What a student with this encoder would teach: [B, N, T]."""

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the masked patches, while paths are dropped."""
    dropped = self.drop_path_rngs(batch, key)
    return self.loss_under(self.mask(batch, key), params, extra, batch, dropped)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the masked patches."""
    return self.loss_under(self.mask(batch, key), params, extra, batch)

  def loss_under(
    self,
    mask: Mask,
    params: Any,
    extra: Any,
    batch: Batch,
    rngs: dict[str, Array] | None = None,
  ) -> Loss:
    """The loss of given masks."""
    variables, patches = {"params": params}, self.patches(batch)
    predictions = cast(Array, self.model.apply(variables, patches, mask, rngs=rngs))
    features = self.teacher.features(self.own_features, extra["teacher"], batch)
    errors = self.error(predictions, mask.take_masked(self.normalize(features)))
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))
