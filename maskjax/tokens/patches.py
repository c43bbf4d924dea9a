"""Images, clips and other grids of values as rows of patches."""

import math
from collections.abc import Sequence

from jax import Array

from maskjax.errors import UserError


def pair(size: int | Sequence[int]) -> tuple[int, int]:
  """Reads a size that is one number for both sides, or (height, width)."""
  if isinstance(size, int):
    return size, size
  if len(size) != 2:
    raise UserError(f"size {tuple(size)}: expected one number or (height, width)")
  return size[0], size[1]


def sides(size: int | Sequence[int], axes: int) -> tuple[int, ...]:
  """Reads a size that is one number for all sides, or one for each.

  Args:
    size: it.
    axes: number of sides: 2 for images, 3 for clips.

  Raises:
    UserError: another number of sides.

  Example:
    >>> sides(16, 2), sides((2, 16, 16), 3)
    ((16, 16), (2, 16, 16))
  """
  found = (size,) * axes if isinstance(size, int) else tuple(size)
  if len(found) != axes:
    raise UserError(f"size {found}: expected one number, or {axes}")
  return found


def grid_of(
  image_size: int | Sequence[int], patch_size: int | Sequence[int]
) -> tuple[int, ...]:
  """The patches along each side of an image or a clip: (rows, columns) of an image.

  Args:
    image_size: side, or (height, width), in pixels; (frames, height, width) of a clip.
    patch_size: likewise, of a patch.

  Raises:
    UserError: the patch size does not divide the image size.

  Example:
    >>> grid_of((224, 192), 16)
    (14, 12)
    >>> grid_of((16, 224, 224), (2, 16, 16))
    (8, 14, 14)
  """
  sizes = (image_size, patch_size)
  axes = max(2 if isinstance(size, int) else len(size) for size in sizes)
  image, patch = sides(image_size, axes), sides(patch_size, axes)
  if min(patch) < 1 or any(i % p for i, p in zip(image, patch, strict=True)):
    raise UserError(
      f"patch_size={'x'.join(map(str, patch))} does not divide "
      f"image_size={'x'.join(map(str, image))}: expected a divisor of "
      f"{'both' if axes == 2 else 'all'} sides"
    )
  return tuple(i // p for i, p in zip(image, patch, strict=True))


def patchify(images: Array, patch_size: int | Sequence[int]) -> Array:
  """Cuts images or clips into patches, row by row.

  Args:
    images: [B, H, W, C], or [B, T, H, W, C], and so on.
    patch_size: side, or (height, width), in pixels; (frames, height, width) of a clip.

  Returns:
    [B, N, P * Q * C]: within a patch pixels run by row, then channels.

  Raises:
    UserError: the patch size does not divide the image size.

  Example:
    >>> import jax.numpy as jnp
    >>> patchify(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
  """
  batch, *size, channels = images.shape
  axes = len(size)
  patch = sides(patch_size, axes)
  grid = grid_of(size, patch)
  # [B, H, W, C] -> [B, rows, P, columns, Q, C] -> [B, rows, columns, P, Q, C]
  cut = images.reshape(batch, *_interleaved(grid, patch), channels)
  order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
  # -> [B, N, P * Q * C]
  return cut.transpose(order).reshape(
    batch, math.prod(grid), math.prod(patch) * channels
  )


def unpatchify(
  patches: Array, *, grid: Sequence[int], patch_size: int | Sequence[int]
) -> Array:
  """Puts patches back together: [B, N, P * Q * C] to [B, H, W, C].

  Args:
    patches: see `patchify`.
    grid: patches along each side; N is their product.
    patch_size: see `patchify`.

  Returns:
    [B, H, W, C], or [B, T, H, W, C], and so on.

  Example:
    >>> import jax.numpy as jnp
    >>> images = jnp.arange(48.0).reshape(1, 4, 4, 3)
    >>> patches = patchify(images, 2)
    >>> bool((unpatchify(patches, grid=(2, 2), patch_size=2) == images).all())
    True
  """
  batch, axes = patches.shape[0], len(grid)
  patch = sides(patch_size, axes)
  # [B, N, P * Q * C] -> [B, rows, columns, P, Q, C] -> [B, rows, P, columns, Q, C]
  cut = patches.reshape(batch, *grid, *patch, -1)
  order = _interleaved(range(1, axes + 1), range(axes + 1, 2 * axes + 1))
  size = (side * p for side, p in zip(grid, patch, strict=True))
  # -> [B, H, W, C]
  return cut.transpose(0, *order, 2 * axes + 1).reshape(batch, *size, cut.shape[-1])


def _interleaved(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
  """The first of both, then the second of both, and so on."""
  return tuple(n for both in zip(first, second, strict=True) for n in both)
