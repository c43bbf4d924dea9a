"""Sizes and cuts of images: resizing, cropping, mirroring.

A size is an int or `(height, width)`.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from maskjax.data.records import Record, every_image, get_image
from maskjax.errors import UserError, did_you_mean

Size = int | Sequence[int]

_METHODS = {method.name.lower(): method for method in Image.Resampling}


@every_image
def resize(record: Record, *, size: Size, method: str = "bicubic") -> Record:
  """Resizes the image with antialiasing.

  Args:
    record: `image` uint8 or float32 `[H, W, C]`.
    size: an int for the short side, keeping the aspect, or exactly `(h, w)`.
    method: a filter of Pillow: `"bicubic"`, `"bilinear"`, `"lanczos"`, ...

  Returns:
    The record with `image` `[h, w, C]`.

  Raises:
    UserError: not such an image, or no such filter.

  Example:
    >>> record = {"image": np.zeros((20, 30, 3), np.uint8)}
    >>> resize(record, size=10)["image"].shape
    (10, 15, 3)
  """
  image = get_image(record, "resize")
  height, width = image.shape[:2]
  if isinstance(size, int):
    short = min(height, width)
    # The long side is rounded down, as torchvision does.
    new = size * height // short, size * width // short
  else:
    new = _pair(size)
  return {**record, "image": _resized(image, new, method)}


@every_image
def center_crop(record: Record, *, size: Size) -> Record:
  """Crops the center of the image.

  Args:
    record: `image` uint8 or float32 `[H, W, C]`.
    size: of the crop.

  Returns:
    The record with `image` `[h, w, C]`.

  Raises:
    UserError: the image is smaller than `size`.
  """
  image = get_image(record, "center_crop")
  height, width = _fitting(image, _pair(size), "center_crop")
  # round() is torchvision's: a half goes to the even number.
  top = round((image.shape[0] - height) / 2)
  left = round((image.shape[1] - width) / 2)
  return {**record, "image": image[top : top + height, left : left + width]}


@every_image
def random_crop(
  record: Record, rng: np.random.Generator, *, size: Size, padding: int = 0
) -> Record:
  """Crops the image at a uniformly random position.

  Args:
    record: `image` uint8 or float32 `[H, W, C]`.
    rng: the randomness.
    size: of the crop.
    padding: pixels of zeros added on every side first.

  Returns:
    The record with `image` `[h, w, C]`.

  Raises:
    UserError: the padded image is smaller than `size`.
  """
  image = get_image(record, "random_crop")
  image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
  height, width = _fitting(image, _pair(size), "random_crop")
  top = rng.integers(image.shape[0] - height + 1)
  left = rng.integers(image.shape[1] - width + 1)
  return {**record, "image": image[top : top + height, left : left + width]}


@every_image
def random_resized_crop(
  record: Record,
  rng: np.random.Generator,
  *,
  size: Size,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  method: str = "bicubic",
) -> Record:
  """Crops a random part of the image and resizes it (Szegedy et al. 2015).

  MAE pre-trains with `scale=(0.2, 1.0)`, and fine-tunes with the default.

  Args:
    record: `image` uint8 or float32 `[H, W, C]`.
    rng: the randomness.
    size: of the result.
    scale: smallest and largest area of the crop, as a share of the image's.
    ratio: smallest and largest ratio of width to height, drawn log-uniformly.
    method: see `resize`.

  Returns:
    The record with `image` `[h, w, C]`.

  Raises:
    UserError: not such an image, or no such filter.
  """
  image = get_image(record, "random_resized_crop")
  top, left, height, width = _random_box(image.shape[:2], rng, scale, ratio)
  crop = image[top : top + height, left : left + width]
  return {**record, "image": _resized(crop, _pair(size), method)}


@every_image
def random_flip(
  record: Record, rng: np.random.Generator, *, prob: float = 0.5
) -> Record:
  """Mirrors the image left to right with probability `prob`.

  Args:
    record: `image` uint8 or float32 `[H, W, C]`.
    rng: the randomness.
    prob: probability of a mirrored image.

  Returns:
    The record with `image` `[H, W, C]`.
  """
  image = get_image(record, "random_flip")
  return {**record, "image": image[:, ::-1] if rng.random() < prob else image}


@every_image
def spaced_patches(
  record: Record, rng: np.random.Generator, *, patch_size: Size, gap: int
) -> Record:
  """Joins patches with gaps between them, so that neighbors correlate less.

  The image is split into cells that are `gap` pixels higher and wider than a patch, and
  each keeps a patch, at one of `gap` positions along each axis, drawn uniformly, as in
  Latent MIM (https://arxiv.org/abs/2407.15837, section 3.3).

  Args:
    record: `image` uint8 or float32 `[H, W, C]`, of a whole number of cells.
    rng: the randomness.
    patch_size: of the patch that is kept of each cell.
    gap: mean number of pixels between neighboring patches.

  Returns:
    The record with `image` `[h, w, C]` of as many patches as there were cells.

  Raises:
    UserError: `gap` is below 1, or the cells do not tile the image.

  Example:
    >>> record = {"image": np.zeros((10, 15, 1), np.uint8)}
    >>> rng = np.random.default_rng(0)
    >>> spaced_patches(record, rng, patch_size=4, gap=1)["image"].shape
    (8, 12, 1)
  """
  image = get_image(record, "spaced_patches")
  sides = _pair(patch_size)
  if gap < 1:
    raise UserError(f"spaced_patches: gap={gap}: expected at least 1 pixel")
  (height, width), cell = image.shape[:2], (sides[0] + gap, sides[1] + gap)
  if height % cell[0] or width % cell[1]:
    raise UserError(
      f"spaced_patches: cells of {cell[0]}x{cell[1]}, patch_size and gap={gap}, do not "
      f"tile an image of {height}x{width}"
    )
  grid = height // cell[0], width // cell[1]
  corner = rng.integers(gap, size=(2, *grid))
  # The rows and columns of each patch's pixels: [R, C, P, 1] and [R, C, 1, Q].
  rows = (np.arange(grid[0]) * cell[0])[:, None] + corner[0]
  columns = np.arange(grid[1]) * cell[1] + corner[1]
  rows = rows[..., None, None] + np.arange(sides[0])[:, None]
  columns = columns[..., None, None] + np.arange(sides[1])
  # [R, C, P, Q, channels] -> [R * P, C * Q, channels]
  kept = image[rows, columns].swapaxes(1, 2)
  shape = grid[0] * sides[0], grid[1] * sides[1], image.shape[2]
  return {**record, "image": kept.reshape(shape)}


def _pair(size: Size) -> tuple[int, int]:
  sizes = (size, size) if isinstance(size, int) else tuple(size)
  if len(sizes) != 2:
    raise UserError(f"a size is an int or (height, width), got {size!r}")
  return sizes


def _fitting(image: np.ndarray, size: tuple[int, int], user: str) -> tuple[int, int]:
  if size[0] > image.shape[0] or size[1] > image.shape[1]:
    raise UserError(
      f"{user} to {size} of an image of {image.shape[:2]}: put 'resize' before it"
    )
  return size


def _random_box(
  shape: Sequence[int],
  rng: np.random.Generator,
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
  """Draws `top, left, height, width`, trying ten times as torchvision does."""
  for _ in range(10):
    area = rng.uniform(*scale) * shape[0] * shape[1]
    aspect = math.exp(rng.uniform(*np.log(ratio)))
    height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
    if 0 < height <= shape[0] and 0 < width <= shape[1]:
      top = int(rng.integers(shape[0] - height + 1))
      left = int(rng.integers(shape[1] - width + 1))
      return top, left, height, width
  # The image is too wide or too tall for the ratios: take its center.
  height = min(shape[0], max(1, round(shape[1] / min(ratio))))
  width = min(shape[1], max(1, round(shape[0] * max(ratio))))
  return (shape[0] - height) // 2, (shape[1] - width) // 2, height, width


def _resized(image: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
  if method not in _METHODS:
    raise UserError(f"no filter {method!r}: {did_you_mean(method, _METHODS)}")
  if image.shape[:2] == size:
    return image

  def resized(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    return np.asarray(picture.resize(size[::-1], _METHODS[method]))

  # Pillow takes three channels at once in uint8 alone, and weights a fourth by
  # opacity; anything else goes channel by channel.
  if image.shape[2] == 3 and image.dtype == np.uint8:
    return resized(image)
  channels = np.moveaxis(image, -1, 0)
  return np.stack([resized(channel) for channel in channels], axis=-1)
