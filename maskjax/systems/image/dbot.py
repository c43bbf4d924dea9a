"""dBOT: exploring target representations for masked autoencoders.

MAE whose decoder predicts a teacher's features of the whole image in place of pixels,
and whose first teacher is a random network, the student as it begins: after each stage
the student becomes the teacher, and a new student begins at random. The features are
those of the last block, before its normalization, each token less its mean over its
std; they are compared by a smooth L1 error (https://arxiv.org/abs/2209.03917).
Config: `configs/image/dbot.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
from jax import Array

from maskjax import resolve
from maskjax.errors import positive
from maskjax.losses import smooth_l1
from maskjax.models import MaskedAutoencoder, Network, decoder_of, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Distillation
from maskjax.objectives.images import masks
from maskjax.objectives.objective import Batch
from maskjax.systems.system import System
from maskjax.targets import normalized_pixels
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="dbot",
  family="image",
  paper="arXiv:2209.03917",
  config="configs/image/dbot.py",
  agrees_with="transformers ViTModel and PyTorch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dbot(Distillation):
  """The objective of dBOT; `dbot` makes it from hyperparameters."""

  def own_features(self, student: Any, batch: Batch) -> Array:
    """What the last block says of whole images, before its normalization."""
    return self.model.encoder.patch_tokens(self.layers(student, batch).tokens[-1])

  def restart(self, params: Any, step: Array, batch: Batch, key: Array) -> Any:
    """Random parameters after the last step of a stage; else those that there are."""
    if not isinstance(self.teacher, teachers.Bootstrap):
      return params
    return jax.lax.cond(
      self.teacher.ends_stage(step),
      lambda: self.init_model(key, batch),
      lambda: params,
    )


def dbot(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  beta: float = 2.0,
  drop_path: float = 0.2,
  **network: Unpack[Network],
) -> Dbot:
  """Makes dBOT from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords; the paper's
      own is `bootstrap`.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    beta: difference at which the error turns from squared to absolute.
    drop_path: drop rate of the last block of encoder and decoder; earlier blocks'
      rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> teacher = {"name": "bootstrap", "stages": 2, "num_steps": 10}
    >>> system = dbot(
    ...   teacher=teacher, image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.model.decoder.patch_dim
    192
  """
  positive(beta=beta)
  patch = per_side(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    drop_path=drop_path,
    **network,
  )
  taught_by = resolve.build(teachers, teacher)
  size = teachers.features_width(taught_by, vit, patch, channels)
  return Dbot(
    model=MaskedAutoencoder(
      encoder=vit,
      decoder=decoder_of(vit, decoder, patch_dim=size),
    ),
    **masks(vit, mask, mask_ratio, patch_size=patch, channels=channels),
    teacher=taught_by,
    normalize=normalized_pixels,
    error=functools.partial(smooth_l1, beta=beta),
  )
