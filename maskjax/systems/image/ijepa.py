"""I-JEPA: self-supervised learning from images with a joint-embedding predictor.

Masks several blocks of an image from a ViT that sees another block of it, and has a
narrow transformer predict, for each masked block by itself, what an average of the ViT
over past steps says there of the whole image: codes normalized by layer normalization
without parameters (https://arxiv.org/abs/2301.08243). Config: `configs/image/ijepa.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, cast

import jax
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, smooth_l1, squared_error
from maskjax.masking import MultiBlock, gather
from maskjax.models import JointEmbedding, Network, decoder_of, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Taught
from maskjax.objectives.objective import Batch, valid
from maskjax.resolve import did_you_mean
from maskjax.systems.system import System
from maskjax.targets import whitened
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="ijepa",
  family="image",
  paper="arXiv:2301.08243",
  config="configs/image/ijepa.py",
  agrees_with="transformers IJepaModel; equations in NumPy",
)

ERRORS = {"smooth_l1": smooth_l1, "squared": squared_error}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentBlocks(Taught):
  """Predicts a teacher's codes of blocks from a student's codes of the context.

  Attributes:
    sampler: draws the context and the blocks.
    error: of each patch, from two [B, T, K, D] to [B, T, K].
  """

  sampler: MultiBlock
  error: Callable[[Array, Array], Array]

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the blocks' patches."""
    blocks = self.blocks(batch, key)
    predictions = self.model.apply(
      {"params": params}, self.patches(batch), self.mask(batch, key), blocks
    )
    targets = gather(self.targets_of(extra, batch), blocks)
    errors = self.error(cast(Array, predictions), targets)
    return Loss.of(Mean.of(errors, valid(batch)[:, None, None]))

  def blocks(self, batch: Batch, key: Array) -> Array:
    """The places that are predicted beside `mask`: int32 [B, T, K]."""
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    return jax.vmap(lambda key: self.sampler.targets(key, self.grid))(example_keys)

  def targets_of(self, extra: Any, batch: Batch) -> Array:
    """What is to be predicted at each patch: [B, N, D]."""
    codes = self.teacher.features(self.features, extra["teacher"], batch)
    targets = self.model.apply(
      {"params": extra["teacher"]}, whitened(codes, epsilon=1e-5), method="targets"
    )
    return cast(Array, targets)


def ijepa(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 14,
  encoder: Mapping[str, Any] | str = "H",
  predictor: Mapping[str, Any] | None = None,
  teacher: Mapping[str, Any] | str = "ema",
  num_targets: int = 4,
  target_scale: Sequence[float] = (0.15, 0.2),
  target_aspect: Sequence[float] = (0.75, 1.5),
  context_scale: Sequence[float] = (0.85, 1.0),
  context_ratio: float = 0.25,
  error: str = "smooth_l1",
  **network: Unpack[Network],
) -> LatentBlocks:
  """Makes I-JEPA from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; 384, 12 and the encoder's when None.
    teacher: see `maskjax.objectives.teachers`; the paper's `decay` of `ema` rises from
      0.996 to 1 along a line.
    num_targets: blocks that are predicted.
    target_scale: their least and largest area, by the grid's.
    target_aspect: their least and largest height, by their width.
    context_scale: least and largest area of the context's square block.
    context_ratio: share of the patches that is seen, see `maskjax.masking.MultiBlock`.
      A quarter is what the least of 128 contexts has on the paper's grid.
    error: `smooth_l1`, as in the authors' code, or `squared`, as in their paper.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> ijepa(image_size=28, patch_size=4, encoder="Ti").num_masked
    37
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    class_token=False,
    **network,
  )
  sampler = MultiBlock(
    num_targets=num_targets,
    target_scale=tuple(target_scale),
    target_aspect=tuple(target_aspect),
    context_scale=tuple(context_scale),
  )
  if error not in ERRORS:
    raise UserError(f"error={error!r}: {did_you_mean(error, ERRORS)}")
  taught_by, patch = resolve.build(teachers, teacher), per_side(patch_size)
  width = teachers.features_width(taught_by, vit, patch, channels)
  if width != vit.width:
    raise UserError(
      f"teacher: its features are {width} wide: expected encoder.width={vit.width}"
    )
  shape = {"width": 384, "depth": 12, "heads": vit.heads, **(predictor or {})}
  predicts = decoder_of(vit, shape, role="predictor", patch_dim=vit.width)
  return LatentBlocks(
    model=JointEmbedding(encoder=vit, predictor=predicts),
    sampler=sampler,
    num_masked=sampler.num_masked(vit.grid, context_ratio),
    teacher=taught_by,
    error=ERRORS[error],
    patch_size=patch,
    channels=channels,
  )
