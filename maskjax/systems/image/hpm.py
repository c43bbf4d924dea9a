"""HPM: hard patches mining for masked image modeling.

Gives MAE a second decoder, which predicts how hard each patch is to reconstruct; it
learns by cross-entropy which of two masked patches has the larger error. An average of
the student asks its own second decoder, of the whole image, what to mask: at first all
at random, in the end the hardest for half of what is masked
(https://arxiv.org/abs/2304.05919). Config: `configs/image/hpm.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, masking
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, ranking_error
from maskjax.masking import Mask
from maskjax.models import MiningAutoencoder, Network
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.reconstruction import Prediction
from maskjax.systems.image.mae import mae
from maskjax.systems.system import System

SYSTEM = System(
  name="hpm",
  family="image",
  paper="arXiv:2304.05919",
  config="configs/image/hpm.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardPatchesMining(Prediction):
  """The objective of HPM; `hpm` makes it from hyperparameters.

  `extra` holds the `teacher` and the `step`, which says what share is hard.

  Attributes:
    teacher: an average of the student.
    hard_ratio: share of the masked patches that are the hardest, at the first and at
      the last step; it changes along a line.
    num_steps: the last step.
  """

  teacher: teachers.Ema
  hard_ratio: tuple[float, float]
  num_steps: int

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters of the student, and a teacher that is a copy."""
    one = {name: rows[:1] for name, rows in batch.items()}
    params = self.model.init(
      key, self.patches(one), self.mask(one, key), method="with_difficulty"
    )["params"]
    teacher = self.teacher.init(params, keys.named(key, "teacher"), batch)
    return Variables(params, {"teacher": teacher, "step": jnp.int32(0)})

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """The teacher follows, and the schedule goes on."""
    del sums
    teacher = self.teacher.update(extra["teacher"], params, step)
    return {"teacher": teacher, "step": step + 1}

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Errors of the patches that the teacher masks, and of their predicted order."""
    mask = self.mined_mask(extra, batch, key)
    predictions, difficulty = self.model.apply(
      {"params": params}, self.patches(batch), mask, method="with_difficulty"
    )
    errors = self.error(predictions, mask.take_masked(self.targets(batch)))
    ranking = ranking_error(difficulty, jax.lax.stop_gradient(errors))
    counts = valid(batch)[:, None]
    return Loss.of(
      Mean.of(errors + ranking[:, None], counts),
      reconstruction=Mean.of(errors, counts),
      ranking=Mean.of(ranking, valid(batch)),
    )

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Errors of patches masked at random, so that all steps have the same task."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)

  def mined_mask(self, extra: Any, batch: Batch, key: Array) -> Mask:
    """The masks that the teacher makes of a batch's examples."""
    scores = self.teacher.features(self.difficulty, extra["teacher"], batch)
    hard = jnp.int32(self.hard_share(extra["step"]) * self.num_masked)
    masked = jax.vmap(masking.hardest, in_axes=(0, 0, None, None))(
      keys.example_keys(keys.named(key, "mask"), batch), scores, self.num_masked, hard
    )
    return Mask.exactly(masked, num_masked=self.num_masked)

  def difficulty(self, params: Any, batch: Batch) -> Array:
    """How hard each patch of whole images would be to reconstruct: [B, N]."""
    return self.model.apply(
      {"params": params}, self.patches(batch), method="difficulty"
    )

  def hard_share(self, step: Array) -> Array:
    """What share of the masked patches are the hardest ones."""
    first, last = self.hard_ratio
    return first + (last - first) * jnp.clip(step / self.num_steps, 0, 1)


def hpm(
  *,
  num_steps: int,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask_ratio: float = 0.75,
  hard_ratio: Sequence[float] = (0.0, 0.5),
  norm_pix_loss: bool = False,
  teacher: str | Mapping[str, Any] | None = None,
  **network: Unpack[Network],
) -> HardPatchesMining:
  """Makes HPM from hyperparameters.

  Args:
    num_steps: the run's, over which `hard_ratio` changes.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads` of both decoders; 512, 8 and 16 when None.
    mask_ratio: share of the patches that is masked.
    hard_ratio: share of these that are the hardest ones, at first and in the end; the
      others are drawn at random.
    norm_pix_loss: normalize each target patch by its own mean and std.
    teacher: an `ema` of `maskjax.objectives.teachers`; when None, its decay rises from
      0.999 to 0.9999 over the first half of the run.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  base = mae(
    image_size=image_size,
    channels=channels,
    patch_size=patch_size,
    encoder=encoder,
    decoder=decoder,
    mask_ratio=mask_ratio,
    norm_pix_loss=norm_pix_loss,
    **network,
  )
  if num_steps < 1:
    raise UserError(f"objective.num_steps={num_steps}: expected the run's, at least 1")
  if len(hard_ratio) != 2 or not all(0 <= share <= 1 for share in hard_ratio):
    raise UserError(
      f"hard_ratio={hard_ratio}: expected two numbers from 0 to 1, the share at first "
      "and in the end"
    )
  rising = {"decay": 0.999, "last": 0.9999, "num_steps": -(-num_steps // 2)}
  parts = base.model
  return HardPatchesMining(
    model=MiningAutoencoder(
      encoder=parts.encoder,
      decoder=parts.decoder,
      predictor=parts.decoder.clone(patch_dim=1),
    ),
    sampler=base.sampler,
    num_masked=base.num_masked,
    target=base.target,
    error=base.error,
    patch_size=base.patch_size,
    channels=base.channels,
    teacher=teachers.average(teacher or {"name": "ema", "shape": "linear", **rising}),
    hard_ratio=(hard_ratio[0], hard_ratio[1]),
    num_steps=num_steps,
  )
