"""AttMask: what to mask from your students, attention-guided masked image modeling.

Lets the teacher of iBOT (https://arxiv.org/abs/2111.07832) decide what its student does
not see: the patches that its class token attends to most, in the last block, the mean
over heads. The student sees mask tokens in their place, and learns by cross-entropy to
give the teacher's scores of prototypes: at each masked patch those of the same patch,
at the class token those of the other view of the image. The teacher is an average of
the student; its scores are centered and sharpened
(https://arxiv.org/abs/2203.12719). Config: `configs/image/attmask.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.masking import informed
from maskjax.models import DistilledEncoder, Network, prototype_head, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch
from maskjax.objectives.prototypes import PrototypeDistillation
from maskjax.systems.system import System
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="attmask",
  family="image",
  paper="arXiv:2203.12719",
  config="configs/image/attmask.py",
  agrees_with="equations in PyTorch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionGuided(PrototypeDistillation):
  """The objective of AttMask; `attmask` makes it from hyperparameters.

  Attributes:
    sampler: masks tokens by the attention to them, from a key and float32 [N].
  """

  sampler: Callable[[Array, Array], Array]

  def masked(self, attention: Array, batch: Batch, key: Array) -> Array:
    """See `PrototypeDistillation`."""
    draw = keys.example_keys(keys.named(key, "mask"), batch)
    draw = jax.vmap(lambda key: jax.random.split(key, 2))(draw).reshape(-1)
    return jax.vmap(self.sampler)(draw, attention)


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
  center_momentum: float = 0.9,
  sinkhorn_steps: int = 0,
  freeze_steps: int = 0,
  patch_weight: float = 1.0,
  drop_path: float = 0.1,
  **network: Unpack[Network],
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
    center_momentum: of the averages that the teacher's scores are centered by.
    sinkhorn_steps: where above 0, no averages: this many steps of Sinkhorn and Knopp
      share the prototypes out evenly in each batch (https://arxiv.org/abs/2304.07193),
      which keeps them apart from the first step on.
    freeze_steps: steps at first in which the prototypes stay as they are; an epoch in
      the paper.
    patch_weight: of the loss of patches, beside that of class tokens.
    drop_path: drop rate of the student's last block; earlier blocks' rise from 0.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
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
  slower = {"name": "ema", "decay": 0.996, "last": 1.0, "num_steps": num_steps}
  return AttentionGuided(
    model=DistilledEncoder(
      encoder=vit,
      head=prototype_head(head or {}, dtype=vit.dtype),
    ),
    patch_size=per_side(patch_size),
    channels=channels,
    teacher=teachers.average(teacher or slower),
    sampler=resolve.bind(informed, mask),
    student_temperature=student_temperature,
    teacher_temperature=(teacher_temperature[0], teacher_temperature[1]),
    temperature_steps=temperature_steps,
    center_momentum=center_momentum,
    sinkhorn_steps=sinkhorn_steps,
    freeze_steps=freeze_steps,
    patch_weight=patch_weight,
  )
