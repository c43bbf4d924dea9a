"""Distillation by prototypes: a student and its average, two views of an image.

The objective of iBOT (https://arxiv.org/abs/2111.07832), for systems that change a part of
it. The student sees mask tokens in the place of some patches, and learns by
cross-entropy to give the teacher's scores of prototypes, centered and sharpened: at each
masked patch those of the same patch, at the class token those of the other view.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask
from maskjax.models import last_attention
from maskjax.objectives import teachers
from maskjax.objectives.images import PatchObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.targets import sinkhorn


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrototypeDistillation(PatchObjective):
  """The objective of iBOT; each system adds what is masked.

  Batches hold two views of each image, `image` and `image2`, both float32
  [B, H, W, C]; without `image2`, as in evaluation, the image is both. `extra` holds the
  `teacher`, the `step`, and the `center` of the teacher's scores of class tokens and of
  patches.

  Attributes:
    model: a `maskjax.models.DistilledEncoder`.
    teacher: an average of the student.
    student_temperature: what the student's scores are divided by.
    teacher_temperature: what the teacher's are, at the first step and from
      `temperature_steps` on; it changes along a line.
    temperature_steps: see there.
    center_momentum: of the averages of the teacher's scores.
    sinkhorn_steps: where above 0, how often the scores of those that are computed at
      once are shared out evenly, in place of the averages.
    freeze_steps: steps at first in which the prototypes stay as they are.
    patch_weight: of the loss of patches, beside that of class tokens.
  """

  teacher: teachers.Ema
  student_temperature: float
  teacher_temperature: tuple[float, float]
  temperature_steps: int
  center_momentum: float
  sinkhorn_steps: int
  freeze_steps: int
  patch_weight: float

  @abc.abstractmethod
  def masked(self, attention: Array, batch: Batch, key: Array) -> Array:
    """What the student does not see of both views: bool [2 B, N].

    Args:
      attention: how much the teacher's class token takes from each patch in the last
        block, the mean over heads: float32 [2 B, N].
      batch: the images of which there are two views each, neighbors in `attention`.
      key: the step's.
    """

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters of the student, and a teacher that is a copy."""
    one = {name: rows[:1] for name, rows in batch.items()}
    views = self.patches(both_views(one))
    mask = Mask.uneven(self.masked(jnp.zeros(views.shape[:2]), one, key))
    params = self.model.init(key, views, mask)["params"]
    center = jnp.zeros(self.model.head.size)
    return Variables(
      params,
      {
        "teacher": self.teacher.init(params, keys.named(key, "teacher"), batch),
        "step": jnp.int32(0),
        "center": {"cls": center, "patch": center.copy()},
      },
    )

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """The teacher follows, and so do the centers of its scores."""
    keep, count = self.center_momentum, jnp.maximum(sums["count"], 1)

    def moved(center: Array, total: Array) -> Array:
      return keep * center + (1 - keep) * total / count

    return {
      "teacher": self.teacher.update(extra["teacher"], params, step),
      "step": step + 1,
      "center": {k: moved(center, sums[k]) for k, center in extra["center"].items()},
    }

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropy with the teacher's scores, with dropped paths."""
    return self.loss_under(params, extra, batch, key, self.drop_path_rngs(batch, key))

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropy with the teacher's scores, with the whole network."""
    return self.loss_under(params, extra, batch, key, {})

  def loss_under(
    self, params: Any, extra: Any, batch: Batch, key: Array, rngs: dict[str, Array]
  ) -> Loss:
    """The loss of both views, as each sees its image, under given random numbers."""
    views = both_views(batch)
    scores, attention = self.teacher.features(self.attend, extra["teacher"], views)
    masked = self.masked(attention, batch, key)
    frozen = extra["step"] < self.freeze_steps
    student = self.model.apply(
      {"params": params}, self.patches(views), Mask.uneven(masked), frozen, rngs=rngs
    )
    student = student / self.student_temperature

    def split(x: Array) -> Array:
      return x.reshape(-1, 2, *x.shape[1:])  # [2 B, ...] -> [B, 2, ...]

    counts = valid(batch)
    both = counts.repeat(2)
    # Each view's class token is compared with the other view's.
    other = split(self.sharpened(scores[:, 0], "cls", extra, both))[:, ::-1]
    cls = cross_entropy(split(student[:, 0]), other).mean(axis=1)
    asked = masked & both[:, None]
    errors = cross_entropy(
      student[:, 1:], self.sharpened(scores[:, 1:], "patch", extra, asked)
    )
    errors = jnp.where(masked, errors, 0).sum(axis=1)
    patch = split(errors / jnp.maximum(masked.sum(axis=1), 1)).mean(axis=1)

    def total(scores: Array) -> Array:
      return jnp.where(counts[:, None], split(scores).mean(axis=1), 0).sum(axis=0)

    loss = Loss.of(
      Mean.of(cls + self.patch_weight * patch, counts),
      class_token=Mean.of(cls, counts),
      patches=Mean.of(patch, counts),
    )
    sums = {
      "cls": total(scores[:, 0]),
      "patch": total(scores[:, 1:].mean(axis=1)),
      "count": counts.sum(dtype=jnp.float32),
    }
    return dataclasses.replace(loss, sums=sums)

  def sharpened(self, scores: Array, kind: str, extra: Any, where: Array) -> Array:
    """What the student has to predict.

    Args:
      scores: the teacher's, [..., K].
      kind: `cls` or `patch`.
      extra: see the class.
      where: which of them the student is asked for, bool [...].

    Returns:
      Shares of the prototypes, float32 [..., K].
    """
    temperature = self.temperature(extra["step"])
    if not self.sinkhorn_steps:
      return jax.nn.softmax((scores - extra["center"][kind]) / temperature, axis=-1)
    rows = scores.reshape(-1, scores.shape[-1]) / temperature
    shares = sinkhorn(rows, where.ravel(), steps=self.sinkhorn_steps)
    return shares.reshape(scores.shape)

  def attend(self, params: Any, batch: Batch) -> tuple[Array, Array]:
    """Scores of whole images, and what the class token attends to.

    Returns:
      float32 [B, 1 + N, K] and [B, N].
    """
    scores, collected = self.model.apply(
      {"params": params}, self.patches(batch), mutable=["intermediates"]
    )
    weights = last_attention(collected["intermediates"]["encoder"]["transformer"])
    return scores, weights[:, :, 0, 1:].mean(axis=1)

  def temperature(self, step: Array) -> Array:
    """What the teacher's scores are divided by at a step."""
    first, last = self.teacher_temperature
    if not self.temperature_steps:
      return jnp.float32(last)
    return first + (last - first) * jnp.clip(step / self.temperature_steps, 0, 1)


def both_views(batch: Batch) -> dict[str, Array]:
  """The views of a batch's images, one after the other: `image` [2 B, H, W, C]."""
  image = batch["image"]
  # Neighbors, so that both lie where the batch's example does.
  views = jnp.stack([image, batch.get("image2", image)], axis=1)
  return {"image": views.reshape(-1, *image.shape[1:])}
