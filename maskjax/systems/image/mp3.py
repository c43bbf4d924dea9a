"""MP3: position prediction as an effective pretraining strategy.

Predicts the position of patches from their content. Patches have no position
embeddings; a random part of them is the context, the only keys and values of attention,
and every patch, of the context or not, is classified among all positions of the image
(https://arxiv.org/abs/2207.07611). Config: `configs/image/mp3.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax.numpy as jnp
from jax import Array

from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import masking_of
from maskjax.models import MaskedEncoder, Network, vit_encoder
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.system import System
from maskjax.tokens import patches_of

SYSTEM = System(
  name="mp3",
  family="image",
  paper="arXiv:2207.07611",
  config="configs/image/mp3.py",
  agrees_with="equations in torch",
  differs=(
    "No code was published: what the paper leaves open is as in MAE.",
    "The class token, which the paper's algorithm leaves out for simplicity, is an "
    "option, on in the paper's setting.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mp3(PatchObjective):
  """Classifies patches by their position; `mp3` makes it from hyperparameters."""

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    return Variables(self.init_params(key, batch))

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean cross-entropy over all patches; the context are the visible ones."""
    mask = self.mask(batch, step)
    logits = cast(Array, self.apply(variables, self.patches(batch), mask, True))
    positions = jnp.arange(logits.shape[1])
    truth = jnp.broadcast_to(jnp.eye(len(positions)), logits.shape)
    where = valid(batch)[:, None]
    return Loss.of(
      Mean.of(cross_entropy(logits, truth), where),
      accuracy=Mean.of(logits.argmax(axis=-1) == positions, where),
    )


def mp3(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  class_token: bool = False,
  **network: Unpack[Network],
) -> Mp3:
  """Makes MP3 from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is not context.
    class_token: put a learned token before the patches, as the paper does: part of the
      context, attending to it, and classified as no position.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, a shape or a ratio out of range; names it.

  Example:
    >>> mp3(image_size=8, channels=1, patch_size=2, encoder="Ti").model.size
    16
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "dino", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    masked_patches="silent",
    positions="none",
    class_token=class_token,
    **network,
  )
  return Mp3(
    model=MaskedEncoder(encoder=vit, size=patches.length),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
  )
