"""The objective of AttMask: iBOT under masks that follow the teacher's attention."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, resolve, schedules
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask
from maskjax.models import Network, last_attention, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.image.attmask import masks
from maskjax.systems.image.attmask.network import (
  DistilledEncoder,
  at_grid,
  prototype_head,
)
from maskjax.targets import sinkhorn
from maskjax.tokens import grid_of, patches_of, patchify


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttMask(PatchObjective):
  """The objective of AttMask; `attmask` makes it from hyperparameters.

  Batches hold two views of each image, `image` and `image2`, both float32
  [B, H, W, C]; without `image2`, as in evaluation, the image is both. They may also
  hold `local`, float32 [B, L, h, w, C]: crops of small parts of each image, which the
  student alone sees, none of them masked. `extra` holds the `teacher`, and the `center`
  of the teacher's logits of class tokens and of patches.

  Attributes:
    model: a `DistilledEncoder`.
    teacher: an average of the student.
    sampler: masks tokens by the attention to them, from a key and float32 [N].
    student_temperature: divides the student's logits.
    teacher_temperature: divides the teacher's logits, at the first step and from
      `temperature_steps` on; it changes along a line.
    temperature_steps: see `teacher_temperature`.
    center_momentum: of the averages of the teacher's logits.
    sinkhorn_steps: where above 0, how many steps assign the logits that are computed
      together evenly to the prototypes, in place of centers.
    freeze_steps: steps at first in which the prototypes stay as they are.
    patch_weight: weight of the loss of patches; that of class tokens has 1.
  """

  teacher: teachers.Ema
  sampler: Callable[[Array, Array], Array]
  student_temperature: float
  teacher_temperature: tuple[float, float]
  temperature_steps: int
  center_momentum: float
  sinkhorn_steps: int
  freeze_steps: int
  patch_weight: float

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters of the student, and a teacher that is a copy."""
    one = first_example(batch)
    views = self.patches(both_views(one))
    mask = Mask.uneven(self.masked(jnp.zeros(views.shape[:2]), one, Step(key)))
    params = self.model.init(key, views, mask)["params"]
    center = jnp.zeros(self.model.head.size)
    return Variables(
      params,
      {
        "teacher": self.teacher.init(params, key, batch),
        "center": {"cls": center, "patch": center.copy()},
      },
    )

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy with the teacher's probabilities, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy with the teacher's probabilities, by the whole network."""
    return self._loss(variables, batch, step, {})

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the teacher toward the student, and the centers to its logits."""
    params, extra = variables
    keep, count = self.center_momentum, jnp.maximum(sums["count"], 1)

    def moved(center: Array, total: Array) -> Array:
      return keep * center + (1 - keep) * total / count

    return Variables(
      params,
      {
        "teacher": self.teacher.update(extra["teacher"], params, step),
        "center": {k: moved(center, sums[k]) for k, center in extra["center"].items()},
      },
    )

  def teacher_variables(self, variables: Variables) -> Variables:
    """The variables with the teacher's arrays instead of the student's."""
    return Variables(variables.extra["teacher"], variables.extra)

  def masked(self, attention: Array, batch: Batch, step: Step) -> Array:
    """Which patches of both views the student does not see: bool [2 B, N].

    Args:
      attention: weight of each patch for the teacher's class token in the last block,
        the mean over heads: float32 [2 B, N].
      batch: the images of which there are two views each, neighbors in `attention`.
      step: the step.
    """
    example_keys = keys.example_keys(keys.named(step.key, "mask"), batch)
    each = jax.vmap(lambda key: jax.random.split(key, 2))(example_keys).reshape(-1)
    return jax.vmap(self.sampler)(each, attention)

  def attend(self, variables: Variables, batch: Batch) -> tuple[Array, Array]:
    """Logits of whole images, and the attention of the class token.

    Returns:
      float32 [B, 1 + N, K] and [B, N].
    """
    logits, collected = self.apply(
      variables, self.patches(batch), mutable=["intermediates"]
    )
    weights = last_attention(collected["intermediates"]["encoder"]["transformer"])
    return logits, weights[:, :, 0, 1:].mean(axis=1)

  def local_class_tokens(
    self,
    variables: Variables,
    batch: Batch,
    fixed: Array | bool,
    rngs: Mapping[str, Array],
  ) -> Array:
    """Logits of the class tokens of local crops, without masks: float32 [B, L, K].

    Args:
      variables: of the student.
      batch: holds `local`.
      fixed: see `PrototypeHead`.
      rngs: generators of the views, from which others are made.
    """
    crops, size = batch["local"], self.patches.size
    # [B, L, h, w, C] -> [B * L, N, P]
    patches = patchify(crops.reshape(-1, *crops.shape[2:]), size)
    grid = grid_of(crops.shape[2:4], size)
    model, params = at_grid(self.model, variables.params, grid)
    own = {name: keys.named(key, "local") for name, key in rngs.items()}
    made = model.apply({"params": params}, patches, None, fixed, rngs=own)
    logits = cast(Array, made)[:, 0]
    return logits.reshape(*crops.shape[:2], -1)

  def temperature(self, step: Step) -> Array:
    """What the teacher's logits are divided by at a step: float32 scalar."""
    first, last = self.teacher_temperature
    if not self.temperature_steps:
      return jnp.float32(last)
    return schedules.linear(
      first, last, schedules.ramp(step.number, self.temperature_steps)
    )

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    """The loss of all views; each predicts what the teacher gives of its image."""
    extra, views = variables.extra, both_views(batch)
    logits, attention = self.teacher.features(self.attend, extra["teacher"], views)
    masked = self.masked(attention, batch, step)
    frozen = step.number < self.freeze_steps
    student = self.apply(
      variables, self.patches(views), Mask.uneven(masked), frozen, rngs=rngs
    )
    student = student / self.student_temperature
    temperature, center = self.temperature(step), extra["center"]

    def split(x: Array) -> Array:
      return x.reshape(-1, 2, *x.shape[1:])  # [2 B, ...] -> [B, 2, ...]

    counts = valid(batch)
    both = counts.repeat(2)
    # Each view's class token is compared with the other view's, and those of local
    # crops with both views'.
    targets = split(self._targets(logits[:, 0], center["cls"], temperature, both))
    pairs = cross_entropy(split(student[:, 0]), targets[:, ::-1])
    if "local" in batch:
      crops = self.local_class_tokens(variables, batch, frozen, rngs)
      crops = crops / self.student_temperature  # [B, L, K]
      # The mean of two cross-entropies is that with the mean of two targets.
      mean = jnp.broadcast_to(targets.mean(axis=1, keepdims=True), crops.shape)
      more = cross_entropy(crops, mean)
      pairs = jnp.concatenate([pairs, more, more], axis=1)
    cls = pairs.mean(axis=1)
    where = masked & both[:, None]
    targets = self._targets(logits[:, 1:], center["patch"], temperature, where)
    errors = cross_entropy(student[:, 1:], targets)
    errors = jnp.where(masked, errors, 0).sum(axis=1)
    patch = split(errors / jnp.maximum(masked.sum(axis=1), 1)).mean(axis=1)

    def total(logits: Array) -> Array:
      return jnp.where(counts[:, None], split(logits).mean(axis=1), 0).sum(axis=0)

    loss = Loss.of(
      Mean.of(cls + self.patch_weight * patch, counts),
      class_token=Mean.of(cls, counts),
      patches=Mean.of(patch, counts),
    )
    sums = {
      "cls": total(logits[:, 0]),
      "patch": total(logits[:, 1:].mean(axis=1)),
      "count": counts.sum(dtype=jnp.float32),
    }
    return dataclasses.replace(loss, sums=sums)

  def _targets(
    self, logits: Array, center: Array, temperature: Array, where: Array
  ) -> Array:
    """The teacher's probabilities of prototypes.

    Args:
      logits: the teacher's, [..., K].
      center: the average of such logits, [K].
      temperature: see `temperature`.
      where: which of them are predicted, bool [...].

    Returns:
      float32 [..., K].
    """
    if not self.sinkhorn_steps:
      return jax.nn.softmax((logits - center) / temperature, axis=-1)
    rows = logits.reshape(-1, logits.shape[-1]) / temperature
    shares = sinkhorn(rows, where.ravel(), steps=self.sinkhorn_steps)
    return shares.reshape(logits.shape)


def both_views(batch: Batch) -> dict[str, Array]:
  """The views of a batch's images, one after the other: `image` [2 B, H, W, C]."""
  image = batch["image"]
  # Neighbors, so that both are on the device of the batch's example.
  views = jnp.stack([image, batch.get("image2", image)], axis=1)
  return {"image": views.reshape(-1, *image.shape[1:])}


def attmask(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "S",
  head: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "attended",
  teacher: str | Mapping[str, Any] | None = None,
  student_temperature: float = 0.1,
  teacher_temperature: Sequence[float] = (0.04, 0.07),
  temperature_steps: int = 0,
  center_momentum: float = 0.9,
  sinkhorn_steps: int = 0,
  freeze_steps: int = 0,
  patch_weight: float = 1.0,
  drop_path: float = 0.1,
  **network: Unpack[Network],
) -> AttMask:
  """Makes AttMask from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    head: `size`, `hidden`, `bottleneck` and `fixed_length` of `PrototypeHead`; 8192,
      2048, 256 and False where left out.
    mask: `attended` and its keywords, for example `dict(name="attended", mode="hint")`;
      modes are `high`, `hint` and `low`. Or an import path.
    teacher: an `ema` of `maskjax.objectives.teachers`; when None, its decay rises
      from 0.996 to 1 along a cosine over the run.
    student_temperature: divides the student's logits.
    teacher_temperature: divides the teacher's logits, at first and after
      `temperature_steps`.
    temperature_steps: steps over which it changes; 30 epochs in the paper.
    center_momentum: of the averages that the teacher's logits are centered by.
    sinkhorn_steps: where above 0, in place of centers: this many steps of Sinkhorn and
      Knopp assign each batch evenly to the prototypes
      (https://arxiv.org/abs/2304.07193), which keeps them apart from the first step on.
    freeze_steps: steps at first in which the prototypes stay as they are; an epoch in
      the paper.
    patch_weight: weight of the loss of patches; that of class tokens has 1.
    drop_path: drop rate of the student's last block; earlier blocks' rise from 0.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a temperature, a momentum, a field of the head or a teacher that
      does not fit; names it.

  Example:
    >>> system = attmask(image_size=8, channels=1, patch_size=2, encoder="Ti")
    >>> system.model.head.size
    8192
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "dino", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    masked_patches="token",
    positions="learned",
    drop_path=drop_path,
    **network,
  )
  temperatures = (student_temperature, *teacher_temperature)
  if len(temperatures) != 3 or min(temperatures) <= 0:
    raise UserError(
      f"student_temperature={student_temperature}, teacher_temperature="
      f"{teacher_temperature}: expected a positive number, and two of them"
    )
  if not 0 <= center_momentum < 1:
    raise UserError(
      f"center_momentum={center_momentum}: expected at least 0 and less than 1"
    )
  if sinkhorn_steps < 0:
    raise UserError(f"sinkhorn_steps={sinkhorn_steps}: expected at least 0")
  slower = {"name": "ema", "decay": 0.996, "last": 1.0}
  first, last = teacher_temperature
  return AttMask(
    model=DistilledEncoder(
      encoder=vit,
      head=prototype_head(
        head or {}, dtype=vit.dtype, kernel_init=vit.options.drawn.positions
      ),
    ),
    patches=patches,
    teacher=teachers.build_ema(teacher or slower),
    sampler=resolve.bind(masks, mask),
    student_temperature=student_temperature,
    teacher_temperature=(first, last),
    temperature_steps=temperature_steps,
    center_momentum=center_momentum,
    sinkhorn_steps=sinkhorn_steps,
    freeze_steps=freeze_steps,
    patch_weight=patch_weight,
  )
