"""I-JEPA: self-supervised learning from images with a joint-embedding predictor.

Hides several blocks of an image from a ViT that sees another block of it, and has a
narrow transformer predict, for each hidden block by itself, what an average of the ViT
over past steps says there of the whole image: codes normalised by layer normalisation
without parameters (https://arxiv.org/abs/2301.08243). Config: `configs/image/ijepa.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, smooth_l1, squared_error
from maskjax.masking import MultiBlock, gather
from maskjax.models import (
  Decoder,
  JointEmbedding,
  VisionEncoder,
  check_shape,
  vit_encoder,
)
from maskjax.objectives import teachers
from maskjax.objectives.images import ImageObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.teachers import Teacher
from maskjax.resolve import did_you_mean
from maskjax.systems import System
from maskjax.targets import whitened
from maskjax.tokens.patches import pair

SYSTEM = System(
  name="ijepa",
  family="image",
  paper="arXiv:2301.08243",
  config="configs/image/ijepa.py",
  agrees_with="transformers IJepaModel; equations in NumPy",
)

ERRORS = {"smooth_l1": smooth_l1, "squared": squared_error}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentBlocks(ImageObjective):
  """Predicts a teacher's codes of blocks from a student's codes of the context.

  Attributes:
    sampler: draws the context and the blocks.
    teacher: sees whole images.
    error: of each patch, from two [B, T, K, D] to [B, T, K].
  """

  sampler: MultiBlock
  teacher: Teacher
  error: Callable[[Array, Array], Array]

  @property
  def pretrained(self) -> dict[str, str]:
    """The teacher's run."""
    return {"teacher": self.teacher.workdir} if self.teacher.workdir else {}

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_model(key, batch)
    taught = self.teacher.init(averaged(params), keys.named(key, "teacher"), batch)

    def codes(batch: Batch) -> Array:
      return self.teacher.features(self.features, taught, batch)

    width, found = self.model.encoder.width, jax.eval_shape(codes, batch).shape[-1]
    if found != width:
      raise UserError(
        f"teacher: its features are {found} wide: expected encoder.width={width}"
      )
    return Variables(params, {"teacher": taught})

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

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """Lets the teacher follow."""
    del sums
    return {"teacher": self.teacher.update(extra["teacher"], averaged(params), step)}


def averaged(params: Mapping[str, Any]) -> dict[str, Any]:
  """What of the student has a teacher: all but the predictor."""
  return {name: part for name, part in params.items() if name != "predictor"}


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
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-6,
  scan: bool = False,
  remat: str = "none",
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
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> ijepa(image_size=28, patch_size=4, encoder="Ti").num_hidden
    37
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    class_token=False,
    dtype=dtype,
    norm_epsilon=norm_epsilon,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  sampler = MultiBlock(
    num_targets=num_targets,
    target_scale=tuple(target_scale),
    target_aspect=tuple(target_aspect),
    context_scale=tuple(context_scale),
  )
  if error not in ERRORS:
    raise UserError(f"error={error!r}: {did_you_mean(error, ERRORS)}")
  return LatentBlocks(
    model=JointEmbedding(encoder=vit, predictor=narrow_predictor(vit, predictor)),
    sampler=sampler,
    num_hidden=sampler.num_hidden(vit.grid, context_ratio),
    teacher=resolve.build(teachers, teacher),
    error=ERRORS[error],
    patch_size=pair(patch_size),
    channels=channels,
  )


def narrow_predictor(vit: VisionEncoder, shape: Mapping[str, Any] | None) -> Decoder:
  """A predictor of codes, see `ijepa`."""
  default = {"width": 384, "depth": 12, "heads": vit.heads}
  return Decoder(
    grid=vit.grid,
    patch_dim=vit.width,
    norm_epsilon=vit.norm_epsilon,
    options=vit.options,
    dtype=vit.dtype,
    **check_shape("predictor", {**default, **(shape or {})}),
  )
