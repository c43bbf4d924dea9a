"""Pixels as targets."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.tokens import patchify, unpatchify
from maskjax.tokens.patches import grid_of

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
  """The pixels themselves, a `maskjax.targets.Target`.

  Attributes:
    patch_size: (height, width) in pixels.
    channels: values a pixel.
    normalized: take `normalized_pixels`.
  """

  patch_size: tuple[int, int]
  channels: int
  normalized: bool = False

  is_pixels = True

  def __post_init__(self) -> None:
    """Refuses patches of one value, which have no deviation."""
    if self.normalized and self.size < 2:
      rows, columns = self.patch_size
      raise UserError(
        "norm_pix_loss=True: expected patches of at least 2 values, "
        f"patch_size={rows}x{columns} with channels={self.channels} has {self.size}"
      )

  @property
  def size(self) -> int:
    """Values in a patch."""
    return self.patch_size[0] * self.patch_size[1] * self.channels

  def __call__(self, images: Array) -> Array:
    """float32 [B, H, W, C] to [B, N, P]."""
    patches = patchify(images, self.patch_size)
    return normalized_pixels(patches) if self.normalized else patches

  def draw(self, values: Array, images: Array) -> Array:
    """Gives normalised patches their own mean and deviation back: [B, H, W, C]."""
    if self.normalized:
      mean, deviation = patch_statistics(patchify(images, self.patch_size))
      values = values * deviation + mean
    grid = grid_of(images.shape[1:3], self.patch_size)
    return unpatchify(values, grid=grid, patch_size=self.patch_size)


def normalized_pixels(patches: Array) -> Array:
  """Pixels less their patch's mean, over its standard deviation.

  The variance is the unbiased one, with 1e-6 added, as in MAE
  (https://arxiv.org/abs/2111.06377, section 3, `norm_pix_loss`).

  Args:
    patches: [..., P] with P of at least 2.

  Returns:
    float32 [..., P].

  Example:
    >>> normalized_pixels(jnp.array([1.0, 3.0]))
    Array([-0.7071066,  0.7071066], dtype=float32)
  """
  mean, deviation = patch_statistics(patches)
  return (patches - mean) / deviation


def patch_statistics(patches: Array) -> tuple[Array, Array]:
  """Each patch's mean and standard deviation: [..., P] to two [..., 1]."""
  patches = patches.astype(jnp.float32)
  mean = patches.mean(axis=-1, keepdims=True)
  variance = patches.var(axis=-1, keepdims=True, ddof=1)
  return mean, jnp.sqrt(variance + EPSILON)
