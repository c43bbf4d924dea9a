"""CroCo: self-supervised pre-training for 3D vision tasks by cross-view completion.

Masks nine tenths of an image's patches and completes it with the help of a second,
whole image of the same scene from another viewpoint: one encoder sees both, and each
block of the decoder attends to its own tokens and then to the second image's
(https://arxiv.org/abs/2210.10716). CroCo v2 turns queries and keys by their place in
place of adding position embeddings: `positions="rotary"`
(https://arxiv.org/abs/2211.10408). Config: `configs/image/croco.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask
from maskjax.models import (
  CrossViewAutoencoder,
  Network,
  check_rotary,
  decoder_of,
  vit_encoder,
)
from maskjax.objectives.images import ImageObjective, masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="croco",
  family="image",
  paper="arXiv:2210.10716",
  config="configs/image/croco.py",
  agrees_with="equations in torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossViewCompletion(ImageObjective):
  """Completes an image by another view; `croco` makes it from hyperparameters.

  Batches hold `image` and `image2`, float32 [B, H, W, C].

  Attributes:
    target: the pixels of the first image.
  """

  target: Pixels

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    one = {name: rows[:1] for name, rows in batch.items()}
    inputs = self.patches(one), self.mask(one, key), self.view(one)
    return Variables(self.model.init(key, *inputs)["params"])

  def view(self, batch: Batch) -> Array:
    """The patches of the second images: [B, N, P]."""
    if "image2" not in batch:
      raise UserError(
        "the data has no 'image2': expected pairs of images, from the source "
        "'image_pairs' or the transform 'second_view'"
      )
    return self.patches({"image": batch["image2"]})

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many pairs."""
    shapes = super().batch_shapes(batch_size)
    return {**shapes, "image2": shapes["image"]}

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the masked patches."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)

  def loss_under(self, mask: Mask, params: Any, batch: Batch) -> Loss:
    """The loss of given masks."""
    predictions = self.predict(mask, params, batch)
    errors = squared_error(predictions, mask.take_masked(self.targets(batch)))
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))

  def predict(self, mask: Mask, params: Any, batch: Batch) -> Array:
    """Predictions of the masked patches: [B, M, P]."""
    inputs = self.patches(batch), mask, self.view(batch)
    return cast(Array, self.model.apply({"params": params}, *inputs))

  def targets(self, batch: Batch) -> Array:
    """What is compared at each patch: [B, N, P]."""
    return self.target(batch["image"])

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """First images as they are and as the encoder sees them, second ones, predictions.

    Visible patches are drawn as they are.
    """
    images, mask = batch["image"], self.mask(batch, key)
    visible = mask.take_visible(self.targets(batch))
    completed = mask.restore(visible, self.predict(mask, params, batch))
    return {
      "original": images,
      "masked": self.masked_images(batch, mask),
      "second view": batch["image2"],
      "reconstructed": self.target.draw(completed, images),
    }


def croco(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  positions: str = "sincos",
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.9,
  norm_pix_loss: bool = True,
  **network: Unpack[Network],
) -> CrossViewCompletion:
  """Makes CroCo from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    positions: `sincos`, or CroCo v2's `rotary`, of both encoder and decoder.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the first image's patches that is masked.
    norm_pix_loss: normalize each target patch by its own mean and std.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> sorted(croco().batch_shapes(2))
    ['image', 'image2', 'index']
  """
  if positions not in ("sincos", "rotary"):
    raise UserError(f"positions={positions!r}: expected 'sincos' or 'rotary'")
  patch = per_side(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    positions=positions,
    class_token=False,
    **network,
  )
  target = Pixels(patch_size=patch, channels=channels, normalized=norm_pix_loss)
  completes = decoder_of(vit, decoder, patch_dim=target.size, positions=positions)
  if positions == "rotary":
    check_rotary(
      "decoder", width=completes.width, heads=completes.heads, axes=len(completes.grid)
    )
  return CrossViewCompletion(
    model=CrossViewAutoencoder(
      encoder=vit,
      decoder=completes,
    ),
    **masks(vit, mask, mask_ratio, patch_size=patch, channels=channels),
    target=target,
  )
