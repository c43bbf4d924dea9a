"""MaskDistill: a unified view of masked image modeling.

Masks blocks of 40 % of an image's patches behind mask tokens inside a ViT, and has a
linear layer predict a teacher's features of the whole image at the masked places: each
token of them normalized by layer normalization without parameters, compared by a smooth
L1 error (https://arxiv.org/abs/2210.10615). Config: `configs/image/maskdistill.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from jax import Array

from maskjax import resolve
from maskjax.errors import positive
from maskjax.losses import smooth_l1
from maskjax.models import MaskedEncoder, Network, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Distillation
from maskjax.objectives.images import masks
from maskjax.objectives.objective import Batch
from maskjax.systems.system import System
from maskjax.targets import whitened
from maskjax.tokens.patches import pair

SYSTEM = System(
  name="maskdistill",
  family="image",
  paper="arXiv:2210.10615",
  config="configs/image/maskdistill.py",
  agrees_with="transformers ViTModel and PyTorch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskDistill(Distillation):
  """The objective of MaskDistill; `maskdistill` makes it from hyperparameters."""

  def own_features(self, student: Any, batch: Batch) -> Array:
    """The encoder's codes of whole images."""
    return self.features(student, batch)


def maskdistill(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  mask: str | Mapping[str, Any] = "blockwise",
  mask_ratio: float = 0.4,
  beta: float = 1.0,
  positions: str = "relative",
  layer_scale: float | None = 0.1,
  drop_path: float = 0.1,
  **network: Unpack[Network],
) -> MaskDistill:
  """Makes MaskDistill from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    beta: difference at which the error turns from squared to absolute.
    positions: see `maskjax.models.VisionEncoder`.
    layer_scale: see `maskjax.models.BlockOptions`.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> system = maskdistill(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.num_masked, system.model.size
    (7, 192)
  """
  positive(beta=beta)
  patch = pair(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    masked_patches="token",
    positions=positions,
    layer_scale=layer_scale,
    drop_path=drop_path,
    **network,
  )
  taught_by = resolve.build(teachers, teacher)
  size = teachers.features_width(taught_by, vit, patch, channels)
  return MaskDistill(
    model=MaskedEncoder(encoder=vit, size=size),
    **masks(vit, mask, mask_ratio, patch_size=patch, channels=channels),
    teacher=taught_by,
    normalize=whitened,
    error=functools.partial(smooth_l1, beta=beta),
  )
