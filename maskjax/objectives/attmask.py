"""AttMask: what to hide from your students, attention-guided masked image modelling.

Lets the teacher of iBOT (https://arxiv.org/abs/2111.07832) decide what its student does
not see: the patches that its class token attends to most, in the last block, the mean
over heads. The student sees mask tokens in their place, and learns by cross-entropy to
give the teacher's scores of prototypes: at each hidden patch those of the same patch,
at the class token those of the other view of the image. The teacher is an average of
the student; its scores are centred and sharpened
(https://arxiv.org/abs/2203.12719). Config: `configs/image/attmask.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask, informed
from maskjax.models import DistilledEncoder, PrototypeHead, last_attention, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.images import PatchObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems import System
from maskjax.tokens.patches import pair

SYSTEM = System(
  name="attmask",
  family="image",
  paper="arXiv:2203.12719",
  config="configs/image/attmask.py",
  agrees_with="equations in PyTorch",
)

CENTER_MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionGuided(PatchObjective):
  """The game of AttMask; `attmask` makes it from hyperparameters.

  Batches hold two views of each image, `image` and `image2`, both float32
  [B, H, W, C]; without `image2`, as in evaluation, the image is both. `extra` holds the
  `teacher`, the `step`, and the `center` of the teacher's scores of class tokens and of
  patches.

  Attributes:
    teacher: an average of the student.
    sampler: hides tokens by the attention to them, from a key and float32 [N].
    student_temperature: what the student's scores are divided by.
    teacher_temperature: what the teacher's are, at the first step and from
      `temperature_steps` on; it changes along a line.
    temperature_steps: see there.
    freeze_steps: steps at first in which the prototypes stay as they are.
    patch_weight: of the loss of patches, beside that of class tokens.
  """

  teacher: teachers.Ema
  sampler: Callable[[Array, Array], Array]
  student_temperature: float
  teacher_temperature: tuple[float, float]
  temperature_steps: int
  freeze_steps: int
  patch_weight: float

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters of the student, and a teacher that is a copy."""
    patches = self.patches(batch)[:1]
    hidden = self.sampler(key, jnp.zeros(patches.shape[1]))[None]
    params = self.model.init(key, patches, Mask.uneven(hidden))["params"]
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
    """The teacher follows, and so do the centres of its scores."""
    count = jnp.maximum(sums["count"], 1)

    def moved(center: Array, total: Array) -> Array:
      return CENTER_MOMENTUM * center + (1 - CENTER_MOMENTUM) * total / count

    return {
      "teacher": self.teacher.update(extra["teacher"], params, step),
      "step": step + 1,
      "center": {k: moved(center, sums[k]) for k, center in extra["center"].items()},
    }

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropy with the teacher's scores, with dropped paths."""
    # The first example's key, so that microbatches draw different numbers.
    draw = keys.example_keys(keys.named(key, "drop_path"), batch)[0]
    return self.judge(params, extra, batch, key, rngs={"drop_path": draw})

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropy with the teacher's scores, with the whole network."""
    return self.judge(params, extra, batch, key)

  def judge(
    self, params: Any, extra: Any, batch: Batch, key: Array, **options: Any
  ) -> Loss:
    """The loss of both views, as each sees its image."""
    views = both_views(batch)
    scores, attention = self.teacher.features(self.attend, extra["teacher"], views)
    hidden = self.hidden(attention, batch, key)
    frozen = extra["step"] < self.freeze_steps
    student = self.model.apply(
      {"params": params}, self.patches(views), Mask.uneven(hidden), frozen, **options
    )
    student = student / self.student_temperature

    def sharpened(scores: Array, kind: str) -> Array:
      centered = scores - extra["center"][kind]
      return jax.nn.softmax(centered / self.temperature(extra["step"]), axis=-1)

    def split(x: Array) -> Array:
      return x.reshape(-1, 2, *x.shape[1:])  # [2 B, ...] -> [B, 2, ...]

    # Each view's class token is compared with the other view's.
    other = split(sharpened(scores[:, 0], "cls"))[:, ::-1]
    cls = cross_entropy(split(student[:, 0]), other).mean(axis=1)
    errors = cross_entropy(student[:, 1:], sharpened(scores[:, 1:], "patch"))
    errors = jnp.where(hidden, errors, 0).sum(axis=1)
    patch = split(errors / jnp.maximum(hidden.sum(axis=1), 1)).mean(axis=1)

    counts = valid(batch)

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

  def hidden(self, attention: Array, batch: Batch, key: Array) -> Array:
    """What the student does not see of both views: bool [2 B, N]."""
    draw = keys.example_keys(keys.named(key, "mask"), batch)
    draw = jax.vmap(lambda key: jax.random.split(key, 2))(draw).reshape(-1)
    return jax.vmap(self.sampler)(draw, attention)

  def temperature(self, step: Array) -> Array:
    """What the teacher's scores are divided by at a step."""
    first, last = self.teacher_temperature
    if not self.temperature_steps:
      return jnp.float32(last)
    return first + (last - first) * jnp.clip(step / self.temperature_steps, 0, 1)


def both_views(batch: Batch) -> dict[str, Array]:
  """The views of a batch's images, one after the other: `image` [2 B, H, W, C]."""
  image = batch["image"]
  # Neighbours, so that both lie where the batch's example does.
  views = jnp.stack([image, batch.get("image2", image)], axis=1)
  return {"image": views.reshape(-1, *image.shape[1:])}


def attmask(
  *,
  num_steps: int,
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
  freeze_steps: int = 0,
  patch_weight: float = 1.0,
  drop_path: float = 0.1,
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-6,
  scan: bool = False,
  remat: str = "none",
) -> AttentionGuided:
  """Makes AttMask from hyperparameters.

  Args:
    num_steps: the run's, over which the teacher becomes slower.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    head: `size`, `hidden`, `bottleneck` and `fixed_length` of
      `maskjax.models.PrototypeHead`; 8192, 2048, 256 and False where it has none.
    mask: a function of `maskjax.masking.informed` or an import path, for example
      `dict(name="attended", mode="hint")`; modes are `high`, `hint` and `low`.
    teacher: an `ema` of `maskjax.objectives.teachers`; when None, its decay rises
      from 0.996 to 1 along a cosine.
    student_temperature: what the student's scores are divided by.
    teacher_temperature: what the teacher's scores are divided by, at first and after
      `temperature_steps`.
    temperature_steps: steps over which it changes; 30 epochs in the paper.
    freeze_steps: steps at first in which the prototypes stay as they are; an epoch in
      the paper.
    patch_weight: of the loss of patches, beside that of class tokens.
    drop_path: drop rate of the student's last block; earlier blocks' rise from 0.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    hides_by="token",
    positions="learned",
    drop_path=drop_path,
    dtype=dtype,
    norm_epsilon=norm_epsilon,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  temperatures = (student_temperature, *teacher_temperature)
  if len(temperatures) != 3 or min(temperatures) <= 0:
    raise UserError(
      f"student_temperature={student_temperature}, teacher_temperature="
      f"{teacher_temperature}: expected a positive number, and two of them"
    )
  shape = {"size": 8192, "hidden": 2048, "bottleneck": 256, **(head or {})}
  fixed_length = shape.pop("fixed_length", False)
  for key, value in shape.items():
    if key not in ("size", "hidden", "bottleneck"):
      hint = resolve.did_you_mean(key, ("size", "hidden", "bottleneck", "fixed_length"))
      raise UserError(f"head.{key}: {hint}")
    if not isinstance(value, int) or value < 1:
      raise UserError(f"head.{key}={value}: expected a positive integer")
  slower = {"name": "ema", "decay": 0.996, "last": 1.0, "num_steps": num_steps}
  return AttentionGuided(
    model=DistilledEncoder(
      encoder=vit,
      head=PrototypeHead(fixed_length=fixed_length, dtype=vit.dtype, **shape),
    ),
    patch_size=pair(patch_size),
    channels=channels,
    teacher=teachers.average(teacher or slower),
    sampler=resolve.bind(informed, mask),
    student_temperature=student_temperature,
    teacher_temperature=(teacher_temperature[0], teacher_temperature[1]),
    temperature_steps=temperature_steps,
    freeze_steps=freeze_steps,
    patch_weight=patch_weight,
  )
