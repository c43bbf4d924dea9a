"""MAE: masked autoencoders are scalable vision learners.

Hides three quarters of an image's patches at random, encodes the visible ones
alone with a ViT, and lets a light decoder predict the pixels of the hidden
ones, each patch normalised by its own mean and deviation
(https://arxiv.org/abs/2111.06377). Config: `configs/image/mae.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from maskjax import keys, masking, resolve, targets
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask, Sampler, samplers
from maskjax.models import Decoder, MaskedAutoencoder, check_shape, vit_encoder
from maskjax.objectives.objective import (
  Batch,
  Variables,
  image_batch_shapes,
  image_patches,
  valid,
)
from maskjax.systems import System
from maskjax.targets.pixels import patch_statistics
from maskjax.tokens import unpatchify
from maskjax.tokens.patches import pair

SYSTEM = System(
  name="mae",
  family="image",
  paper="arXiv:2111.06377",
  config="configs/image/mae.py",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE:
  """The game of MAE; `mae` makes it from hyperparameters.

  Batches hold `image`, float32 [B, H, W, C].

  Attributes:
    model: predicts hidden patches.
    sampler: draws masks.
    num_hidden: how many patches it hides.
    target: what a patch's prediction is compared with.
    patch_size: (height, width) in pixels.
  """

  model: MaskedAutoencoder
  sampler: Sampler
  num_hidden: int
  target: Callable[[Array], Array]
  patch_size: tuple[int, int]

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of patches."""
    return self.model.encoder.grid

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    patches = self.patches(batch)[:1]
    one = {name: rows[:1] for name, rows in batch.items()}
    variables = self.model.init(key, patches, self.mask(one, key))
    return Variables(variables["params"])

  def patches(self, batch: Batch) -> Array:
    """The patches of a batch's images: [B, N, P]."""
    return image_patches(
      batch, self.grid, self.patch_size, self.model.decoder.patch_dim
    )

  def batch_shapes(self, batch_size: int) -> dict[str, ShapeDtypeStruct]:
    """The shapes of a batch of this many images."""
    patch_dim = self.model.decoder.patch_dim
    return image_batch_shapes(batch_size, self.grid, self.patch_size, patch_dim)

  def mask(self, batch: Batch, key: Array) -> Mask:
    """The masks of a batch's examples under a step's key."""
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    return masking.draw(
      self.sampler, example_keys, self.grid, num_hidden=self.num_hidden
    )

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean squared error over the hidden patches."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)

  def loss_under(self, mask: Mask, params: Any, batch: Batch) -> Loss:
    """The loss of given masks."""
    patches = self.patches(batch)
    errors = squared_error(
      self.predict(mask, params, patches), self.target(mask.masked(patches))
    )
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))

  def predict(
    self, mask: Mask, params: Any, patches: Array, *, visible_too: bool = False
  ) -> Array:
    """Predictions of the hidden patches of [B, N, P], or of all: [B, M or N, P]."""
    predictions = self.model.apply({"params": params}, patches, mask, visible_too)
    return cast(Array, predictions)

  def features(self, params: Any, batch: Batch) -> Array:
    """Codes of all patches, nothing hidden: [B, N, D]."""
    tokens = self.model.apply({"params": params}, self.patches(batch), method="encode")
    return cast(Array, tokens)[:, 1:]

  def targets(self, batch: Batch) -> Array:
    """What would be compared at each patch: [B, N, P]."""
    return self.target(self.patches(batch))

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """Images as they are, as the encoder sees them, and as they are predicted.

    Normalised predictions are given back their patch's own mean and deviation.
    """
    patches = self.patches(batch)
    mask = self.mask(batch, key)
    predictions = self.predict(mask, params, patches)
    if self.target is targets.normalized_pixels:
      mean, deviation = patch_statistics(mask.masked(patches))
      predictions = predictions * deviation + mean
    grey = jnp.full_like(predictions, patches.mean())

    def image(hidden_patches: Array) -> Array:
      whole = mask.restore(mask.visible(patches), hidden_patches)
      return unpatchify(whole, grid=self.grid, patch_size=self.patch_size)

    return {
      "original": batch["image"],
      "masked": image(grey),
      "reconstructed": image(predictions),
    }


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
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-6,
  scan: bool = False,
  remat: str = "none",
) -> MAE:
  """Makes MAE from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is hidden.
    norm_pix_loss: normalise each target patch by its own mean and deviation.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> mae(image_size=8, channels=1, patch_size=2, encoder="Ti").grid
    (4, 4)
  """
  patch = pair(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    dtype=dtype,
    norm_epsilon=norm_epsilon,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  patch_dim = patch[0] * patch[1] * channels
  if norm_pix_loss and patch_dim < 2:
    raise UserError(
      "norm_pix_loss=True: expected patches of at least 2 values, "
      f"patch_size={patch[0]}x{patch[1]} with channels={channels} has {patch_dim}"
    )
  shape = {"width": 512, "depth": 8, "heads": 16, **(decoder or {})}
  return MAE(
    model=MaskedAutoencoder(
      encoder=vit,
      decoder=Decoder(
        grid=vit.grid,
        patch_dim=patch_dim,
        norm_epsilon=vit.norm_epsilon,
        options=vit.options,
        dtype=vit.dtype,
        **check_shape("decoder", shape),
      ),
    ),
    sampler=resolve.bind(samplers, mask),
    num_hidden=masking.num_hidden(vit.grid[0] * vit.grid[1], mask_ratio),
    target=targets.normalized_pixels if norm_pix_loss else targets.pixels,
    patch_size=patch,
  )
