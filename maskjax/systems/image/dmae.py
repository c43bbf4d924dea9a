"""DMAE: masked autoencoders enable efficient knowledge distillers.

MAE that also learns from a larger MAE: besides predicting pixels, one block of its
encoder is to say of the visible patches what a block of the teacher says. Its tokens
are projected to the teacher's channels, and compared at length 1 by an L1 distance. The
teacher sees the visible patches alone, and runs no further than that block
(https://arxiv.org/abs/2208.12256). Config: `configs/image/dmae.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from jax import Array

from maskjax import resolve
from maskjax.errors import UserError, at_least_one
from maskjax.losses import Loss, Mean, absolute_error, squared_error
from maskjax.masking import Mask
from maskjax.models import (
  AlignedAutoencoder,
  Network,
  Projector,
  decoder_of,
  vit_encoder,
)
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Taught
from maskjax.objectives.images import masks
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.reconstruction import Prediction
from maskjax.systems.system import System
from maskjax.targets import Pixels, unit
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="dmae",
  family="image",
  paper="arXiv:2208.12256",
  config="configs/image/dmae.py",
  agrees_with="transformers ViTModel and PyTorch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dmae(Prediction, Taught):
  """The objective of DMAE; `dmae` makes it from hyperparameters.

  Attributes:
    teacher_layer: number of the teacher's block, from 1; it runs no further.
  """

  teacher_layer: int

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Error of the masked patches, and distance from the teacher at the others."""
    return self.judge(self.mask(batch, key), params, extra, batch)

  def judge(self, mask: Mask, params: Any, extra: Any, batch: Batch) -> Loss:
    """The loss of given masks: means of each example, added."""
    predictions, own = cast(
      tuple[Array, Array],
      self.model.apply(
        {"params": params},
        *(self.patches(batch), mask),
        method="predict_and_project",
      ),
    )
    taught = self.teacher.layers(
      self, extra["teacher"], batch, mask, depth=self.teacher_layer
    ).tokens[-1]
    # A class token stands first; it counts where both have one.
    count = min(own.shape[1], taught.shape[1])
    far = absolute_error(unit(own[:, -count:]), unit(taught[:, -count:])).mean(axis=1)
    wrong = self.error(predictions, mask.take_masked(self.targets(batch))).mean(axis=1)
    where = valid(batch)
    return Loss.of(
      Mean.of(wrong + far, where),
      reconstruction=Mean.of(wrong, where),
      distillation=Mean.of(far, where),
    )


def dmae(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  norm_pix_loss: bool = False,
  layer: int | None = None,
  teacher_layer: int | None = None,
  projector_depth: int = 1,
  **network: Unpack[Network],
) -> Dmae:
  """Makes DMAE from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords; it has to
      have layers.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    norm_pix_loss: normalize each target patch by its own mean and std.
    layer: which block of the encoder learns from the teacher, counted from 1; the one
      at three quarters of its depth when None.
    teacher_layer: from which block of the teacher; the same when None.
    projector_depth: dense layers from the encoder's channels to the teacher's.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> system = dmae(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.model.layer, system.teacher_layer
    (9, 9)
  """
  at_least_one(projector_depth=projector_depth)
  patch = per_side(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    **network,
  )
  target = Pixels(patch_size=patch, channels=channels, normalized=norm_pix_loss)
  num_patches = vit.grid[0] * vit.grid[1]
  images = masks(vit, mask, mask_ratio, patch_size=patch, channels=channels)
  num_masked = images["num_masked"]
  taught_by = resolve.build(teachers, teacher)
  num_visible = num_patches - num_masked
  shapes = teachers.layer_shapes(taught_by, vit, patch, channels, num_masked=num_masked)
  if shapes[-1][1] - num_visible not in (0, 1):
    raise UserError(
      f"teacher sees {shapes[-1][1]} tokens where {num_visible} patches are "
      "visible: expected an encoder that sees no others, as MAE's does"
    )
  return Dmae(
    model=AlignedAutoencoder(
      encoder=vit,
      decoder=decoder_of(vit, decoder, patch_dim=target.size),
      projector=Projector(size=shapes[-1][2], depth=projector_depth, dtype=vit.dtype),
      layer=_layer("layer", layer, vit.depth),
    ),
    **images,
    target=target,
    error=squared_error,
    teacher=taught_by,
    teacher_layer=_layer("teacher_layer", teacher_layer, len(shapes)),
  )


def _layer(key: str, layer: int | None, depth: int) -> int:
  """Reads the number of a block, by default at three quarters of the depth."""
  layer = max(1, 3 * depth // 4) if layer is None else layer
  if not 1 <= layer <= depth:
    raise UserError(f"{key}={layer}: expected a block from 1 to {depth}")
  return layer
