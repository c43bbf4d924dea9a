"""CrossMAE: rethinking patch dependence for masked autoencoders.

MAE whose decoder has no attention among the masked patches: each is predicted by
itself, by attention to the visible ones alone, so that the loss need ask for a part of
the masked patches only. Each of the decoder's blocks attends to its own learned
combination of what the encoder's blocks gave, the embedded patches included
(https://arxiv.org/abs/2401.14391). Config: `configs/image/crossmae.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax import masking
from maskjax.errors import UserError
from maskjax.losses import squared_error
from maskjax.models import (
  CrossDecoder,
  CrossMaskedAutoencoder,
  Network,
  decoder_of,
  vit_encoder,
)
from maskjax.objectives.images import masks
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="crossmae",
  family="image",
  paper="arXiv:2401.14391",
  config="configs/image/crossmae.py",
  agrees_with="equations in torch",
)


def crossmae(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  prediction_ratio: float = 0.25,
  norm_pix_loss: bool = True,
  **network: Unpack[Network],
) -> Reconstruction:
  """Makes CrossMAE from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 12 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    prediction_ratio: share of all patches that the loss asks for, at most `mask_ratio`.
    norm_pix_loss: normalize each target patch by its own mean and std.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> objective = crossmae()
    >>> objective.num_masked, objective.num_predicted
    (147, 49)
  """
  if not 0 < prediction_ratio <= mask_ratio:
    raise UserError(
      f"prediction_ratio={prediction_ratio}: expected more than 0 and at most "
      f"mask_ratio={mask_ratio}"
    )
  patch = per_side(patch_size)
  # What the decoder reads is normalized by its own blocks.
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    final_norm=False,
    **network,
  )
  target = Pixels(patch_size=patch, channels=channels, normalized=norm_pix_loss)
  length = vit.grid[0] * vit.grid[1]
  return Reconstruction(
    model=CrossMaskedAutoencoder(
      encoder=vit,
      decoder=decoder_of(
        vit,
        {"depth": 12, **(decoder or {})},
        kind=CrossDecoder,
        patch_dim=target.size,
      ),
    ),
    **masks(vit, mask, mask_ratio, patch_size=patch, channels=channels),
    num_predicted=masking.num_masked(length, prediction_ratio),
    target=target,
    error=squared_error,
  )
