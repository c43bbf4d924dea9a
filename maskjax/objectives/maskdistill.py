"""MaskDistill: a unified view of masked image modelling.

Hides blocks of 40 % of an image's patches behind mask tokens inside a ViT, and has a
linear layer predict a teacher's features of the whole image at the hidden places: each
token of them normalised by layer normalisation without parameters, compared by a smooth
L1 error (https://arxiv.org/abs/2210.10615). Config: `configs/image/maskdistill.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax import Array

from maskjax import masking, resolve
from maskjax.errors import UserError
from maskjax.losses import smooth_l1
from maskjax.masking import samplers
from maskjax.models import MaskedEncoder, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Distillation
from maskjax.objectives.images import image_batch_shapes
from maskjax.objectives.objective import Batch
from maskjax.systems import System
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
  """The game of MaskDistill; `maskdistill` makes it from hyperparameters."""

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
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-6,
  scan: bool = False,
  remat: str = "none",
) -> MaskDistill:
  """Makes MaskDistill from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is hidden.
    beta: difference at which the error turns from squared to absolute.
    positions: see `maskjax.models.VisionEncoder`.
    layer_scale: see `maskjax.models.Transformer`.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> system = maskdistill(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.num_hidden, system.model.size
    (7, 192)
  """
  if beta <= 0:
    raise UserError(f"beta={beta}: expected a number above 0")
  patch = pair(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    dtype=dtype,
    hides_by="token",
    positions=positions,
    norm_epsilon=norm_epsilon,
    layer_scale=layer_scale,
    drop_path=drop_path,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  taught_by = resolve.build(teachers, teacher)
  values, num_patches = patch[0] * patch[1] * channels, vit.grid[0] * vit.grid[1]
  size = teachers.features_width(
    taught_by,
    jax.ShapeDtypeStruct((1, num_patches, vit.width), vit.dtype),
    image_batch_shapes(1, vit.grid, patch, values),
  )
  return MaskDistill(
    model=MaskedEncoder(encoder=vit, size=size),
    sampler=resolve.bind(samplers, mask),
    num_hidden=masking.num_hidden(num_patches, mask_ratio),
    teacher=taught_by,
    normalize=whitened,
    error=functools.partial(smooth_l1, beta=beta),
    patch_size=patch,
    channels=channels,
  )
