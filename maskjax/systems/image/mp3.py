"""MP3: position prediction as an effective pretraining strategy.

Predicts where patches stand from what they show. Patches have no position embeddings;
a random part of them is the context, the only keys and values of attention, and every
patch, masked from the others or not, is classified among all places of the image
(https://arxiv.org/abs/2207.07611). Config: `configs/image/mp3.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax.numpy as jnp
from jax import Array

from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask
from maskjax.models import MaskedEncoder, Network, vit_encoder
from maskjax.objectives.images import ImageObjective, masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems.system import System

SYSTEM = System(
  name="mp3",
  family="image",
  paper="arXiv:2207.07611",
  config="configs/image/mp3.py",
  agrees_with="equations in torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionPrediction(ImageObjective):
  """Classifies patches by their place; `mp3` makes it from hyperparameters."""

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    return Variables(self.init_model(key, batch))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean cross-entropy over all patches."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)

  def loss_under(self, mask: Mask, params: Any, batch: Batch) -> Loss:
    """The loss of given contexts, which are the visible patches."""
    logits = cast(
      Array, self.model.apply({"params": params}, self.patches(batch), mask, True)
    )
    places = jnp.arange(logits.shape[1])
    truth = jnp.broadcast_to(jnp.eye(len(places)), logits.shape)
    counts = valid(batch)[:, None]
    return Loss.of(
      Mean.of(cross_entropy(logits, truth), counts),
      accuracy=Mean.of(logits.argmax(axis=-1) == places, counts),
    )


def mp3(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  **network: Unpack[Network],
) -> PositionPrediction:
  """Makes MP3 from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is not context.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> mp3(image_size=8, channels=1, patch_size=2, encoder="Ti").model.size
    16
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    masked_patches="silent",
    positions="none",
    class_token=False,
    **network,
  )
  length = vit.grid[0] * vit.grid[1]
  return PositionPrediction(
    model=MaskedEncoder(encoder=vit, size=length),
    **masks(vit, mask, mask_ratio, patch_size=patch_size, channels=channels),
  )
