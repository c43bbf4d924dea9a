"""MaskFeat: masked feature prediction for self-supervised visual pre-training.

Masks blocks of an image's patches by mask tokens inside a ViT, and predicts a
hand-crafted descriptor of them with one linear layer: histograms of oriented gradients,
whose local normalization keeps shapes and removes brightness and contrast
(https://arxiv.org/abs/2112.09133; of its two settings the one of images). Config:
`configs/image/maskfeat.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.losses import squared_error
from maskjax.masking import masking_of, num_masked
from maskjax.models import MaskedEncoder, Network, vit_encoder
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems.system import System
from maskjax.targets import Hog
from maskjax.tokens import patches_of
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="maskfeat",
  family="image",
  paper="arXiv:2112.09133",
  config="configs/image/maskfeat.py",
  agrees_with="transformers ViTForMaskedImageModeling, equations in NumPy and SciPy",
  differs=(
    "Where ten blocks in a row do not fit, single patches are masked until their "
    "number is reached; the authors mask fewer.",
    "The class token has no position of its own, which would be added to it.",
    "The bias of the last normalization begins at 0.02 as all others do; the authors' "
    "at 0.",
    "The batch is the paper's 2048; the released config has 256, and 300 epochs.",
  ),
)


def maskfeat(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  cell_size: int | Sequence[int] = 8,
  orientations: int = 9,
  encoder: Mapping[str, Any] | str = "B",
  mask: str | Mapping[str, Any] | None = None,
  mask_ratio: float = 0.4,
  positions: str = "learned",
  **network: Unpack[Network],
) -> Reconstruction:
  """Makes MaskFeat from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    cell_size: side, or (height, width), in pixels, of a histogram.
    orientations: bins of a histogram.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: name of a sampler of `maskjax.masking`, or an import path; when None
      `blockwise`, with blocks of at least a fifth of what is masked.
    mask_ratio: share of the patches that is masked, rounded to the nearest number.
    positions: see `maskjax.models.VisionEncoder`.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, cells that do not divide a patch, a shape or a
      ratio out of range; names it.

  Example:
    >>> objective = maskfeat(encoder="Ti")
    >>> objective.target.size, objective.masking.num_masked  # 2x2 cells, 3 channels
    (108, 78)
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "maskfeat", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    masked_patches="token",
    positions=positions,
    **network,
  )
  target = Hog(
    patch_size=patches.size,
    cell_size=per_side(cell_size),
    channels=channels,
    orientations=orientations,
  )
  if mask is None:
    least = num_masked(patches.length, mask_ratio, "nearest") // 5
    mask = {"name": "blockwise", "min_patches": least}
  return Reconstruction(
    model=MaskedEncoder(encoder=vit, size=target.size),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio, rounding="nearest"),
    target=target,
    error=squared_error,
  )
