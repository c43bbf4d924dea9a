"""ColorMAE: data-independent masks of filtered noise in masked autoencoders.

Changes MAE's masks alone: white noise is filtered, and the patches where it is lowest
are masked, so that the filter sets how large and how far apart the masked areas are, at
no cost and independently of the image. Green noise, a band of middle frequencies, works
best (https://arxiv.org/abs/2407.13036). Config: `configs/image/colormae.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.models import Network
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems.image.mae import mae
from maskjax.systems.system import System

SYSTEM = System(
  name="colormae",
  family="image",
  paper="arXiv:2407.13036",
  config="configs/image/colormae.py",
  agrees_with="scipy.ndimage gaussian_filter",
  differs=(
    "The noise of each mask is drawn from the example's key; the authors crop and "
    "mirror windows of noise images that they made before training.",
  ),
)


def colormae(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "green",
  mask_ratio: float = 0.75,
  norm_pix_loss: bool = True,
  **network: Unpack[Network],
) -> Reconstruction:
  """Makes ColorMAE from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: `red`, `blue`, `green` or `purple`, see `maskjax.masking.noise`; for another
      filter with its keywords, for example `dict(name="green", sigmas=(0.5, 2.0))`.
    mask_ratio: share of the patches that is masked.
    norm_pix_loss: normalize each target patch by its own mean and std.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, no such sampler or keyword of it, or a shape or
      a ratio out of range; names it.

  Example:
    >>> colormae(encoder="Ti").masking.sampler.__name__
    'green'
  """
  return mae(
    image_size=image_size,
    channels=channels,
    patch_size=patch_size,
    encoder=encoder,
    decoder=decoder,
    mask=mask,
    mask_ratio=mask_ratio,
    norm_pix_loss=norm_pix_loss,
    **network,
  )
