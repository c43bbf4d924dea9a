"""Images as rows of patches."""

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


def grid_of(
  image_size: int | Sequence[int], patch_size: int | Sequence[int]
) -> tuple[int, int]:
  """The patches of an image: (rows, columns).

  Args:
    image_size: side, or (height, width), in pixels.
    patch_size: side, or (height, width), in pixels.

  Raises:
    UserError: the patch size does not divide the image size.

  Example:
    >>> grid_of((224, 192), 16)
    (14, 12)
  """
  (height, width), (rows, columns) = pair(image_size), pair(patch_size)
  if min(rows, columns) < 1 or height % rows or width % columns:
    raise UserError(
      f"patch_size={rows}x{columns} does not divide image_size={height}x{width}: "
      "expected a divisor of both sides"
    )
  return height // rows, width // columns


def patchify(images: Array, patch_size: int | Sequence[int]) -> Array:
  """Cuts images into patches, row by row.

  Args:
    images: [B, H, W, C].
    patch_size: side, or (height, width), in pixels.

  Returns:
    [B, N, P * Q * C]: within a patch pixels run by row, then channels.

  Example:
    >>> import jax.numpy as jnp
    >>> patchify(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
  """
  batch, height, width, channels = images.shape
  rows, columns = grid_of((height, width), patch_size)
  p, q = pair(patch_size)
  # [B, H, W, C] -> [B, rows, P, columns, Q, C] -> [B, N, P * Q * C]
  cut = images.reshape(batch, rows, p, columns, q, channels)
  return cut.transpose(0, 1, 3, 2, 4, 5).reshape(
    batch, rows * columns, p * q * channels
  )


def unpatchify(
  patches: Array, *, grid: tuple[int, int], patch_size: int | Sequence[int]
) -> Array:
  """Puts patches back together: [B, N, P * Q * C] to [B, H, W, C].

  Example:
    >>> import jax.numpy as jnp
    >>> images = jnp.arange(48.0).reshape(1, 4, 4, 3)
    >>> patches = patchify(images, 2)
    >>> bool((unpatchify(patches, grid=(2, 2), patch_size=2) == images).all())
    True
  """
  batch = patches.shape[0]
  (rows, columns), (p, q) = grid, pair(patch_size)
  # [B, N, P * Q * C] -> [B, rows, columns, P, Q, C] -> [B, H, W, C]
  cut = patches.reshape(batch, rows, columns, p, q, -1)
  return cut.transpose(0, 1, 3, 2, 4, 5).reshape(
    batch, rows * p, columns * q, cut.shape[-1]
  )
