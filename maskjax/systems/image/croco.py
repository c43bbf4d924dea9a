"""CroCo: self-supervised pre-training for 3D vision tasks by cross-view completion.

Masks nine tenths of an image's patches and completes it with the help of a second,
whole image of the same scene from another viewpoint: one encoder encodes both, and each
block of the decoder attends to its own tokens and then to the second image's
(https://arxiv.org/abs/2210.10716). CroCo v2 rotates queries and keys by their positions
instead of adding position embeddings: `positions="rotary"`
(https://arxiv.org/abs/2211.10408). Config: `configs/image/croco.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, squared_error
from maskjax.masking import Mask, Masking, masking_of
from maskjax.models import (
  Decoder,
  Layers,
  Network,
  check_rotary,
  decoder_of,
  encoder_layers,
  vit_encoder,
)
from maskjax.models.encoder_model import EncoderModel
from maskjax.objectives.objective import Batch, Step, Variables, first_example
from maskjax.objectives.reconstruction import patch_loss
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens import Patches, patches_of

SYSTEM = System(
  name="croco",
  family="image",
  paper="arXiv:2210.10716",
  config="configs/image/croco.py",
  agrees_with="equations in torch",
  differs=(
    "Views are cropped and jittered alone, as in the released code; the first paper "
    "has homographies and rotations besides.",
  ),
)


class CrossViewAutoencoder(EncoderModel):
  """The network of CroCo (https://arxiv.org/abs/2210.10716, figure 2).

  Attributes:
    encoder: sees the visible patches of one image, and the whole of the other; has no
      class token.
    decoder: sees both.
  """

  decoder: Decoder

  def __call__(
    self, patches: Array, mask: Mask, view: Array, visible_too: bool = False
  ) -> Array:
    """Predicts masked patches of the first image.

    Args:
      patches: [B, N, P].
      mask: which of them the encoder must not see.
      view: the other image's patches, [B, N, P].
      visible_too: predict the visible patches as well.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`.
    """
    encoded = self.encoder(patches, mask)
    return self.decoder(encoded, mask, visible_too, self.encoder(view))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CroCo:
  """Completes an image by another view; `croco` makes it from hyperparameters.

  Batches hold `image` and `image2`, float32 [B, H, W, C].

  Attributes:
    model: the network.
    patches: cuts images into patches [B, N, P].
    masking: draws the masks of the first images.
    target: the pixels of the first images.
    error: of each token, from two [B, M, P] to [B, M].
  """

  model: CrossViewAutoencoder
  patches: Patches
  masking: Masking
  target: Pixels
  error: Callable[[Array, Array], Array]

  @property
  def encoder(self) -> Any:
    """The network that is finetuned."""
    return self.model.encoder

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    one = first_example(batch)
    inputs = self.patches(one), self.mask(one, Step(key)), self.view(one)
    return Variables(self.model.init(key, *inputs)["params"])

  def mask(self, batch: Batch, step: Step) -> Mask:
    """The masks of the first images in a step."""
    return self.masking(batch, step.key)

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
    shapes = self.patches.batch_shapes(batch_size)
    return {**shapes, "image2": shapes["image"]}

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the masked patches."""
    mask = self.mask(batch, step)
    predictions = self.predictions(variables, batch, mask)
    return patch_loss(self.error, predictions, self.targets(batch), mask, batch)

  def predictions(self, variables: Variables, batch: Batch, mask: Mask) -> Array:
    """Predictions of the masked patches: [B, M, P]."""
    inputs = self.patches(batch), mask, self.view(batch)
    return cast(Array, self.model.apply({"params": variables.params}, *inputs))

  def targets(self, batch: Batch) -> Array:
    """What is to be predicted at each patch of the first images: [B, N, P]."""
    return self.target(batch["image"])

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features of all patches of the first images, none masked: [B, N, D]."""
    inputs = {"params": variables.params}, self.patches(batch)
    return cast(Array, self.model.apply(*inputs, method="encode"))

  def layers(
    self,
    variables: Variables,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Layers:
    """Hidden states of the encoder's blocks, see `maskjax.models.encoder_layers`."""
    encoder, params = self.model.encoder, variables.params["encoder"]
    patches = self.patches(batch)
    return encoder_layers(
      encoder, params, patches, mask, depth=depth, attention=attention
    )

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """First images as they are and as the encoder sees them, second ones, predictions.

    Visible patches are drawn as they are.
    """
    images, mask, patches = batch["image"], self.mask(batch, step), self.patches(batch)
    visible = mask.take_visible(self.targets(batch))
    completed = mask.restore(visible, self.predictions(variables, batch, mask))
    gray = jnp.where(mask.masked[..., None], patches.mean(), patches)
    return {
      "original": images,
      "masked": self.patches.join(gray),
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
) -> CroCo:
  """Makes CroCo from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    positions: `sincos`, or CroCo v2's `rotary`, of both encoder and decoder.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the first image's patches that is masked, rounded down.
    norm_pix_loss: normalize each target patch by its own mean and std.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, or positions, a shape or a ratio out of range;
      names it.

  Example:
    >>> sorted(croco().batch_shapes(2))
    ['image', 'image2', 'index']
  """
  if positions not in ("sincos", "rotary"):
    raise UserError(f"positions={positions!r}: expected 'sincos' or 'rotary'")
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "mae", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    positions=positions,
    class_token=False,
    **network,
  )
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
  completing = decoder_of(vit, decoder, patch_dim=target.size, positions=positions)
  if positions == "rotary":
    check_rotary(
      "decoder", width=completing.width, heads=completing.heads, axes=len(patches.grid)
    )
  return CroCo(
    model=CrossViewAutoencoder(encoder=vit, decoder=completing),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio, rounding="down"),
    target=target,
    error=squared_error,
  )
