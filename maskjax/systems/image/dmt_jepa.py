"""DMT-JEPA: discriminative masked targets for joint-embedding prediction.

I-JEPA whose targets are made of neighbors: of the patches around a target patch those
with the most similar codes are chosen, and light attention heads draw from them, on
behalf of the image's mean code, what is to be predicted; the same heads, which the
teacher averages too, work on the student's context
(https://arxiv.org/abs/2405.17995). Config: `configs/image/dmt_jepa.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.errors import UserError, at_least_one
from maskjax.models import AggregationHead, DiscriminativeJointEmbedding, Network
from maskjax.objectives.teachers import average
from maskjax.systems.image.ijepa import LatentBlocks, ijepa
from maskjax.systems.system import System

SYSTEM = System(
  name="dmt_jepa",
  family="image",
  paper="arXiv:2405.17995",
  config="configs/image/dmt_jepa.py",
  agrees_with="equations in NumPy",
)


def dmt_jepa(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  predictor: Mapping[str, Any] | None = None,
  num_neighbors: int = 4,
  window: int = 3,
  head_depth: int = 2,
  teacher: Mapping[str, Any] | str = "ema",
  num_targets: int = 4,
  target_scale: Sequence[float] = (0.15, 0.2),
  target_aspect: Sequence[float] = (0.75, 1.5),
  context_scale: Sequence[float] = (0.85, 1.0),
  context_ratio: float = 0.25,
  error: str = "smooth_l1",
  **network: Unpack[Network],
) -> LatentBlocks:
  """Makes DMT-JEPA from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; 384, 6 and the encoder's when None.
    num_neighbors: how many neighbors a target is made of.
    window: side of the neighborhood from which they come, in patches.
    head_depth: blocks of the heads that aggregate them.
    teacher: `ema` and its keywords, see `maskjax.objectives.teachers.ema`.
    num_targets: see `maskjax.systems.ijepa`, as all that follow.
    target_scale: their least and largest area, by the grid's.
    target_aspect: their least and largest height, by their width.
    context_scale: least and largest area of the context's square block.
    context_ratio: share of the patches that is seen.
    error: `smooth_l1` or `squared`.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> dmt_jepa(image_size=28, patch_size=4, encoder="Ti").model.num_neighbors
    4
  """
  average(teacher)  # which averages the heads as well
  base = ijepa(
    image_size=image_size,
    channels=channels,
    patch_size=patch_size,
    encoder=encoder,
    predictor={"depth": 6, **(predictor or {})},
    teacher=teacher,
    num_targets=num_targets,
    target_scale=target_scale,
    target_aspect=target_aspect,
    context_scale=context_scale,
    context_ratio=context_ratio,
    error=error,
    **network,
  )
  vit = base.model.encoder
  if not 1 < window <= min(vit.grid):
    raise UserError(f"window={window}: expected at least 2 and at most {min(vit.grid)}")
  if not 0 < num_neighbors < window**2:
    raise UserError(
      f"num_neighbors={num_neighbors}: expected at least 1 and less than {window**2}, "
      "the patches of the window"
    )
  at_least_one(head_depth=head_depth)
  head = AggregationHead(
    heads=vit.heads,
    depth=head_depth,
    mlp_ratio=vit.options.mlp_ratio,
    norm_epsilon=vit.norm_epsilon,
    dtype=vit.dtype,
  )
  model = DiscriminativeJointEmbedding(
    encoder=vit,
    head=head,
    predictor=base.model.predictor,
    num_neighbors=num_neighbors,
    window=window,
  )
  return dataclasses.replace(base, model=model, followed=("encoder", "head"))
