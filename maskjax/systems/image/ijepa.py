"""I-JEPA: self-supervised learning from images with a joint-embedding predictor.

Encodes a context block of an image with a ViT, and predicts, with a narrow transformer,
the features of several other blocks, each by itself. The targets are an averaged
encoder's features of the whole image, normalized by layer normalization without
parameters (https://arxiv.org/abs/2301.08243). Config: `configs/image/ijepa.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.models import JointEmbedding, Network
from maskjax.objectives import teachers
from maskjax.objectives.joint_embedding import (
  BlockPrediction,
  block_prediction,
  context_networks,
)
from maskjax.systems.system import System
from maskjax.tokens import patches_of

SYSTEM = System(
  name="ijepa",
  family="image",
  paper="arXiv:2301.08243",
  config="configs/image/ijepa.py",
  agrees_with="transformers IJepaModel; equations in NumPy",
  differs=(
    "Each block of each example draws a size of its own; the authors draw one of "
    "target blocks and one of contexts for a batch.",
    "A fixed number of patches of each target block is predicted, drawn at random, and "
    "the context has a fixed number, by patches outside its block where that has "
    "fewer; the authors predict whole blocks, and cut contexts short, from below, to "
    "the smallest of a batch.",
    "Blocks may touch each edge of the grid; the authors' never reach the last row and "
    "the last column.",
  ),
)


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
) -> BlockPrediction:
  """Makes I-JEPA from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; 384, 12 and the encoder's when None.
    teacher: see `maskjax.objectives.teachers`; the paper's `decay` of `ema` rises from
      0.996 to 1 along a line.
    num_targets: number of target blocks.
    target_scale: smallest and largest area of a target block, as a share of the grid's.
    target_aspect: smallest and largest ratio of a target block's height to its width.
    context_scale: smallest and largest area of the square context block.
    context_ratio: share of the patches that is visible, see
      `maskjax.masking.MultiBlock`. A quarter is what the smallest of 128 contexts has
      on the paper's grid.
    error: `smooth_l1`, as in the authors' code, or `squared`, as in their paper.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a range of the masks or a teacher that does not fit; names it.

  Example:
    >>> ijepa(image_size=28, patch_size=4, encoder="Ti").masking.num_masked
    37
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "normal", **network}
  vit, predicts = context_networks(
    patches, encoder=encoder, predictor=predictor, predictor_depth=12, **network
  )
  return block_prediction(
    model=JointEmbedding(encoder=vit, predictor=predicts),
    patches=patches,
    teacher=teachers.build(teacher),
    num_targets=num_targets,
    target_scale=target_scale,
    target_aspect=target_aspect,
    context_scale=context_scale,
    context_ratio=context_ratio,
    error=error,
  )
