"""From a record's image to Pillow's, and back."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from maskjax.data.records import Record, get_image
from maskjax.errors import UserError

Fill = int | Sequence[int]


def as_picture(record: Record, user: str) -> Image.Image:
  """Turns the record's image into Pillow's.

  Args:
    record: `image` uint8 `[H, W, C]` of 1 or 3 channels.
    user: the transform that needs it, for the error message.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  image = get_image(record, user)
  if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
    raise UserError(
      f"{user} needs a uint8 image of 1 or 3 channels (put it before "
      f"'to_float'), got {image.dtype} {list(image.shape)}"
    )
  return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def as_pixels(picture: Image.Image) -> np.ndarray:
  """Turns an image of Pillow's into an array: uint8 [H, W, C]."""
  pixels = np.asarray(picture)
  return pixels[..., None] if pixels.ndim == 2 else pixels


def affine(
  image: Image.Image, rows: tuple[float, float, float, float, float, float], fill: Fill
) -> Image.Image:
  """Applies an affine map to an image, of the same size.

  Args:
    image: gray or RGB.
    rows: the first two rows of the matrix from a pixel of the result to the pixel of
      `image` that it comes from.
    fill: see `fill_color`.
  """
  return image.transform(
    image.size,
    Image.Transform.AFFINE,
    rows,
    resample=Image.Resampling.BICUBIC,
    fillcolor=fill_color(image, fill),
  )


def fill_color(image: Image.Image, fill: Fill) -> int | tuple[int, ...]:
  """The color of pixels from outside an image, in its mode: one number, or three.

  Args:
    image: gray or RGB.
    fill: a gray level, or one for each of three channels, of which a gray image has the
      mean.

  Example:
    >>> fill_color(Image.new("L", (1, 1)), (0, 2, 4))
    2
  """
  levels = (fill,) * 3 if isinstance(fill, int) else tuple(fill)
  return round(sum(levels) / len(levels)) if image.mode == "L" else levels
