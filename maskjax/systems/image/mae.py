"""MAE: masked autoencoders are scalable vision learners.

Masks three quarters of an image's patches at random, encodes the visible ones alone
with a ViT, and predicts the pixels of the masked ones with a light decoder, each patch
normalized by its own mean and std (https://arxiv.org/abs/2111.06377). Config:
`configs/image/mae.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.losses import squared_error
from maskjax.masking import masking_of
from maskjax.models import MaskedAutoencoder, Network, decoder_of, vit_encoder
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens import patches_of

SYSTEM = System(
  name="mae",
  family="image",
  paper="arXiv:2111.06377",
  config="configs/image/mae.py",
  agrees_with="transformers ViTMAEForPreTraining",
  differs=("Computation in bfloat16; the authors' is in float16, with a scaled loss.",),
)


def mae(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  norm_pix_loss: bool = True,
  **network: Unpack[Network],
) -> Reconstruction:
  """Makes MAE from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    norm_pix_loss: normalize each target patch by its own mean and std.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, a shape or a ratio out of range; names it.

  Example:
    >>> mae(image_size=8, channels=1, patch_size=2, encoder="Ti").patches.grid
    (4, 4)
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "mae", **network}
  vit = vit_encoder(grid=patches.grid, encoder=encoder, **network)
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
  return Reconstruction(
    model=MaskedAutoencoder(
      encoder=vit, decoder=decoder_of(vit, decoder, patch_dim=target.size)
    ),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
    target=target,
    error=squared_error,
  )
