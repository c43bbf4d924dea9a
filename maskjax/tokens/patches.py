"""Arrays of any rank as rows of patches: images, clips, spectrograms, volumes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError


def per_side(size: int | Sequence[int], rank: int = 2) -> tuple[int, ...]:
  """Reads a size that is one number for all sides, or one for each.

  Args:
    size: of images the side, or (height, width), in pixels.
    rank: number of sides; 2 for images.

  Raises:
    UserError: it is neither.

  Example:
    >>> per_side(16), per_side((2, 16, 16), rank=3)
    ((16, 16), (2, 16, 16))
  """
  if isinstance(size, int):
    return (size,) * rank
  whole = isinstance(size, Sequence) and all(isinstance(side, int) for side in size)
  if not whole or len(size) != rank:
    expected = "or (height, width)" if rank == 2 else f"or {rank}"
    found = tuple(size) if isinstance(size, Sequence) else size
    raise UserError(f"size {found}: expected one number, {expected}")
  return tuple(size)


def grid_of(
  image_size: int | Sequence[int],
  patch_size: int | Sequence[int],
  rank: int | None = None,
) -> tuple[int, ...]:
  """How many patches lie along each side.

  Args:
    image_size: of images the side, or (height, width), in pixels; see `per_side`.
    patch_size: the same of patches.
    rank: number of sides; when None as many as a size has, 2 where both are numbers.

  Raises:
    UserError: the patch size does not divide the image size.

  Example:
    >>> grid_of((224, 192), 16), grid_of((16, 224, 224), (2, 16, 16))
    ((14, 12), (8, 14, 14))
  """
  if rank is None:
    sizes = (image_size, patch_size)
    rank = max(len(size) if isinstance(size, Sequence) else 2 for size in sizes)
  whole, part = per_side(image_size, rank), per_side(patch_size, rank)
  if min(whole) < 1:
    raise UserError(f"image_size={_by(whole)}: expected at least 1")
  if min(part) < 1 or any(n % p for n, p in zip(whole, part, strict=True)):
    every = "both sides" if rank == 2 else "every side"
    raise UserError(
      f"patch_size={_by(part)} does not divide image_size={_by(whole)}: "
      f"expected a divisor of {every}"
    )
  return tuple(n // p for n, p in zip(whole, part, strict=True))


def patchify(arrays: Array, patch_size: int | Sequence[int]) -> Array:
  """Cuts arrays into patches, in row-major order.

  Args:
    arrays: [B, ..., C], for example images [B, H, W, C] or clips [B, T, H, W, C].
    patch_size: see `grid_of`.

  Returns:
    [B, N, P]: P values of a patch in row-major order, then channels.

  Example:
    >>> patchify(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
  """
  batch, *whole, channels = arrays.shape
  rank = len(whole)
  grid, part = grid_of(whole, patch_size, rank), per_side(patch_size, rank)
  # Of images: [B, H, W, C] -> [B, rows, P, columns, Q, C] -> [B, N, P * Q * C]
  both = [side for pair in zip(grid, part, strict=True) for side in pair]
  cut = arrays.reshape(batch, *both, channels)
  axes = (0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
  return cut.transpose(axes).reshape(batch, math.prod(grid), math.prod(part) * channels)


def unpatchify(
  patches: Array, *, grid: Sequence[int], patch_size: int | Sequence[int]
) -> Array:
  """Puts patches back together: [B, N, P] to [B, ..., C], for example [B, H, W, C].

  Example:
    >>> images = jnp.arange(48.0).reshape(1, 4, 4, 3)
    >>> patches = patchify(images, 2)
    >>> bool((unpatchify(patches, grid=(2, 2), patch_size=2) == images).all())
    True
  """
  batch, rank = patches.shape[0], len(grid)
  part = per_side(patch_size, rank)
  # Of images: [B, N, P * Q * C] -> [B, rows, columns, P, Q, C] -> [B, H, W, C]
  cut = patches.reshape(batch, *grid, *part, -1)
  pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
  whole = [n * p for n, p in zip(grid, part, strict=True)]
  return cut.transpose(0, *pairs, 2 * rank + 1).reshape(batch, *whole, cut.shape[-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches:
  """How a batch's arrays become patches; `patches_of` makes it.

  Attributes:
    size: sides of a patch, for images (height, width) in pixels.
    grid: how many patches lie along each side; N is their product.
    channels: values a pixel.
    name: the batch's entry that is cut, float32 [B, ..., C].
  """

  size: tuple[int, ...]
  grid: tuple[int, ...]
  channels: int
  name: str = "image"

  @property
  def length(self) -> int:
    """How many patches an example has: N."""
    return math.prod(self.grid)

  @property
  def dim(self) -> int:
    """How many values a patch has: P."""
    return math.prod(self.size) * self.channels

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of an example, for images (H, W, C)."""
    whole = (n * p for n, p in zip(self.grid, self.size, strict=True))
    return (*whole, self.channels)

  def __call__(self, batch: Mapping[str, Array]) -> Array:
    """The patches of a batch: [B, N, P].

    Raises:
      UserError: the batch has no such entry, or one of another shape; names both.
    """
    if self.name not in batch:
      raise UserError(
        f"the data has no {self.name!r}, but {', '.join(sorted(batch))}: expected it, "
        f"of shape {_by(self.shape)}"
      )
    found = batch[self.name].shape[1:]
    if found != self.shape:
      raise UserError(
        f"the data has {self.name}s of {_by(found)}: expected {_by(self.shape)}, as "
        "objective.image_size and objective.channels say"
      )
    return patchify(batch[self.name], self.size)

  def join(self, patches: Array) -> Array:
    """Puts patches back together: [B, N, P] to [B, ..., C]."""
    return unpatchify(patches, grid=self.grid, patch_size=self.size)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many examples."""
    return {
      self.name: jax.ShapeDtypeStruct((batch_size, *self.shape), jnp.float32),
      "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def patches_of(
  image_size: int | Sequence[int],
  patch_size: int | Sequence[int],
  *,
  channels: int,
  rank: int = 2,
  name: str = "image",
) -> Patches:
  """Makes `Patches` from the sizes of whole arrays and of patches.

  Args:
    image_size: see `grid_of`.
    patch_size: see `grid_of`.
    channels: values a pixel.
    rank: number of sides: 2 for images and spectrograms, 3 for clips and volumes.
    name: the batch's entry that is cut.

  Raises:
    UserError: the patch size does not divide the image size, or there are no channels.

  Example:
    >>> patches_of(8, 2, channels=1).grid
    (4, 4)
  """
  grid = grid_of(image_size, patch_size, rank)
  if channels < 1:
    raise UserError(f"channels={channels}: expected at least 1")
  return Patches(
    size=per_side(patch_size, rank), grid=grid, channels=channels, name=name
  )


def _by(numbers: Sequence[int]) -> str:
  return "x".join(map(str, numbers))
