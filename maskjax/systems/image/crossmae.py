"""CrossMAE: rethinking patch dependence for masked autoencoders.

MAE whose decoder has no attention among the masked patches: each is predicted by
itself, by attention to the visible ones alone, so that a part of the masked patches is
enough for the loss. Each of the decoder's blocks attends to its own learned combination
of the outputs of the encoder's blocks, the embedded patches included
(https://arxiv.org/abs/2401.14391). Config: `configs/image/crossmae.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import squared_error
from maskjax.masking import Mask, masking_of
from maskjax.models import Network, decoder_of, vit_encoder
from maskjax.models.decoder import TokenDecoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.initialization import XAVIER
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens import patches_of, sincos

SYSTEM = System(
  name="crossmae",
  family="image",
  paper="arXiv:2401.14391",
  config="configs/image/crossmae.py",
  agrees_with="equations in torch",
  differs=(
    "Held out, all masked patches are predicted.",
    "The setting is that of the README's command, which predicts a quarter of all "
    "patches; the released ViT-B predicted all that are masked.",
  ),
)


class CrossDecoder(TokenDecoder, kw_only=True):
  """Predicts each patch by itself, from the features of the visible ones.

  Its blocks have no attention among the predicted patches, so that it can predict any
  number of them. Each block attends to a learned combination of the outputs of the
  encoder's blocks (https://arxiv.org/abs/2401.14391, section 3).

  Attributes:
    patch_dim: length P of a prediction.
  """

  patch_dim: int

  @nn.compact
  def __call__(
    self, encoded: Sequence[Array], mask: Mask, visible_too: bool = False
  ) -> Array:
    """Predicts the patches of `mask.masked_ids`, or all.

    Args:
      encoded: K arrays [B, 1 + V, E]: the tokens before the encoder's blocks, and
        after each.
      mask: the mask under which they were encoded.
      visible_too: predict all patches.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`, in order of position.
    """
    # The authors draw them as all their dense layers, over normal ones before.
    weights = self.param("weights", XAVIER, (self.depth, len(encoded)))
    # [K, B, 1 + V, E] -> [depth, B, 1 + V, E]
    mixed = jnp.einsum("dk,kbve->dbve", weights.astype(self.dtype), jnp.stack(encoded))
    positions = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    wanted = positions[None] if visible_too else positions[mask.masked_ids]
    x = self.mask_tokens() + wanted
    x = jnp.broadcast_to(x, (mixed.shape[1], *x.shape[1:]))
    x = self.transform(x, attends="context", context=list(mixed))
    return self.predict(x, self.patch_dim)


class CrossMaskedAutoencoder(EncoderModel):
  """The network of CrossMAE (https://arxiv.org/abs/2401.14391, figure 3).

  Attributes:
    encoder: sees the visible patches only.
    decoder: attends to the outputs of all of its blocks.
  """

  decoder: CrossDecoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts patches: [B, N, P] to float32 [B, M, P], see `CrossDecoder`."""
    encoded = self.encoder.every_block(patches, mask, embedded_too=True)
    return self.decoder(encoded, mask, visible_too)


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
    prediction_ratio: share of all patches that is predicted in training, at most
      `mask_ratio`.
    norm_pix_loss: normalize each target patch by its own mean and std.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, a shape or a ratio out of range, or a
      `prediction_ratio` above `mask_ratio`; names it.

  Example:
    >>> objective = crossmae()
    >>> objective.masking.num_masked, objective.num_predicted
    (147, 49)
  """
  if not 0 < prediction_ratio <= mask_ratio:
    raise UserError(
      f"prediction_ratio={prediction_ratio}: expected more than 0 and at most "
      f"mask_ratio={mask_ratio}"
    )
  patches = patches_of(image_size, patch_size, channels=channels)
  masking = masking_of(patches.grid, mask, mask_ratio)
  # Rounded down, as the authors round it.
  unpredicted = int(patches.length * (mask_ratio - prediction_ratio))
  # The decoder's own blocks normalize what they attend to.
  network = {"initialization": "crossmae", **network}
  vit = vit_encoder(grid=patches.grid, encoder=encoder, final_norm=False, **network)
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
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
    patches=patches,
    masking=masking,
    num_predicted=masking.num_masked - unpredicted,
    target=target,
    error=squared_error,
  )
