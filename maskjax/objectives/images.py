"""What the systems that mask patches of images have in common."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, masking, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking import Mask, Sampler, samplers
from maskjax.models import Layers, encoder_layers
from maskjax.objectives.objective import Batch, Variables, collections
from maskjax.tokens import patchify, unpatchify
from maskjax.tokens.patches import pair


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchObjective(abc.ABC):
  """A system that sees images as patches; each adds `init` and `loss`.

  Batches hold `image`, float32 [B, H, W, C].

  Attributes:
    model: a module of `maskjax.models`. Its `encoder` has a `grid` and `patch_tokens`,
      and its method `encode` gives codes of whole images.
    patch_size: (height, width) in pixels.
    channels: values a pixel.
  """

  model: Any
  patch_size: tuple[int, int]
  channels: int

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of patches."""
    return self.model.encoder.grid

  @property
  def patch_dim(self) -> int:
    """Values in a patch."""
    return self.patch_size[0] * self.patch_size[1] * self.channels

  @abc.abstractmethod
  def init(self, key: Array, batch: Batch) -> Variables:
    """See `maskjax.objectives.Objective`."""

  @abc.abstractmethod
  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """See `maskjax.objectives.Objective`."""

  def patches(self, batch: Batch) -> Array:
    """The patches of a batch's images: [B, N, P]."""
    return image_patches(batch, self.grid, self.patch_size, self.patch_dim)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many images."""
    return image_batch_shapes(batch_size, self.grid, self.patch_size, self.patch_dim)

  def features(self, params: Any, batch: Batch) -> Array:
    """Codes of all patches, nothing masked: [B, N, D]."""
    variables = collections(params)
    tokens = self.model.apply(variables, self.patches(batch), method="encode")
    return self.model.encoder.patch_tokens(cast(Array, tokens))

  def layers(
    self, params: Any, batch: Batch, mask: Mask | None = None, **asked: Any
  ) -> Layers:
    """What the encoder's blocks say, see `maskjax.models.encoder_layers`."""
    encoder, patches = self.model.encoder, self.patches(batch)
    return encoder_layers(encoder, params["encoder"], patches, mask, **asked)

  def drop_path_rngs(self, batch: Batch, key: Array) -> dict[str, Array]:
    """What the model needs to drop paths at random; nothing where it drops none."""
    if not getattr(self.model.encoder, "drops_paths", False):
      return {}
    # The first example's key, so that microbatches drop different ones.
    return {"drop_path": keys.example_keys(keys.named(key, "drop_path"), batch)[0]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageObjective(PatchObjective):
  """A system that masks a number of patches that no image changes.

  Attributes:
    model: is called with patches [B, N, P] and a mask.
    sampler: draws masks.
    num_masked: how many patches it masks.
  """

  sampler: Sampler
  num_masked: int

  def init_model(self, key: Array, batch: Batch) -> Any:
    """Parameters of the model for images of the batch's shape."""
    one = {name: rows[:1] for name, rows in batch.items()}
    variables = self.model.init(key, self.patches(one), self.mask(one, key))
    return variables["params"]

  def mask(self, batch: Batch, key: Array) -> Mask:
    """The masks of a batch's examples under a step's key."""
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    return masking.draw(
      self.sampler, example_keys, self.grid, num_masked=self.num_masked
    )

  def masked_images(self, batch: Batch, mask: Mask) -> Array:
    """A batch's images, gray where they are masked: [B, H, W, C]."""
    patches = self.patches(batch)
    seen = jnp.where(mask.masked[..., None], patches.mean(), patches)
    return unpatchify(seen, grid=self.grid, patch_size=self.patch_size)


def masks(
  encoder: Any,
  mask: str | Mapping[str, Any],
  mask_ratio: float,
  *,
  patch_size: int | Sequence[int],
  channels: int,
) -> dict[str, Any]:
  """Makes the fields of an `ImageObjective`, but for its model.

  Args:
    encoder: has a `grid`.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    patch_size: side, or (height, width), in pixels.
    channels: values a pixel.

  Raises:
    UserError: there is no such sampler, or no such share.
  """
  return {
    "sampler": resolve.bind(samplers, mask),
    "num_masked": masking.num_masked(math.prod(encoder.grid), mask_ratio),
    "patch_size": pair(patch_size),
    "channels": channels,
  }


def image_patches(
  batch: Batch, grid: Sequence[int], patch_size: tuple[int, int], patch_dim: int
) -> Array:
  """Cuts the images of a batch into patches, if they are as the model expects.

  Args:
    batch: holds `image`, float [B, H, W, C].
    grid: rows and columns of patches that the model expects.
    patch_size: (height, width) in pixels.
    patch_dim: values in a patch that the model expects.

  Returns:
    [B, N, patch_dim].

  Raises:
    UserError: the images have another shape; names both.
  """
  found = batch["image"].shape[1:]
  expected = (
    grid[0] * patch_size[0],
    grid[1] * patch_size[1],
    patch_dim // (patch_size[0] * patch_size[1]),
  )
  if found != expected:
    raise UserError(
      f"the data has images of {'x'.join(map(str, found))}: expected "
      f"{'x'.join(map(str, expected))}, as objective.image_size and "
      "objective.channels say"
    )
  return patchify(batch["image"], patch_size)


def image_batch_shapes(
  batch_size: int, grid: Sequence[int], patch_size: tuple[int, int], patch_dim: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a batch whose images `image_patches` takes."""
  (rows, columns), (p, q) = grid, patch_size
  image = (batch_size, rows * p, columns * q, patch_dim // (p * q))
  return {
    "image": jax.ShapeDtypeStruct(image, jnp.float32),
    "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
  }
