"""Random changes of color and sharpness, each of uint8 images of 1 or 3 channels.

BYOL (https://arxiv.org/abs/2006.07733, appendix B) applies them to its views, and after
it DINO and iBOT.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from maskjax.data.pictures import as_picture, as_pixels
from maskjax.data.records import Record, every_image


@every_image
def color_jitter(
  record: Record,
  rng: np.random.Generator,
  *,
  prob: float = 1.0,
  brightness: float = 0.4,
  contrast: float = 0.4,
  saturation: float = 0.4,
  hue: float = 0.0,
) -> Record:
  """Changes brightness, contrast, saturation and hue, in random order.

  Args:
    record: `image` uint8 `[H, W, C]`.
    rng: the randomness.
    prob: probability of any change.
    brightness: the factor is uniform within this distance of 1.
    contrast: likewise.
    saturation: likewise; without effect on gray images.
    hue: largest rotation of the hue either way, as a share of the full circle; without
      effect on gray images.

  Returns:
    The record with `image` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  picture = as_picture(record, "color_jitter")
  if rng.random() >= prob:
    return record
  enhancers = (
    (ImageEnhance.Brightness, brightness),
    (ImageEnhance.Contrast, contrast),
    (ImageEnhance.Color, saturation),
  )
  for kind in rng.permutation(4):
    if kind < 3:
      enhancer, most = enhancers[kind]
      picture = enhancer(picture).enhance(rng.uniform(max(0, 1 - most), 1 + most))
    else:
      picture = _rotate_hue(picture, rng.uniform(-hue, hue))
  return {**record, "image": as_pixels(picture)}


@every_image
def random_gray(
  record: Record, rng: np.random.Generator, *, prob: float = 0.2
) -> Record:
  """Converts the image to gray with probability `prob`, and keeps its channels.

  Args:
    record: `image` uint8 `[H, W, C]`.
    rng: the randomness.
    prob: probability of gray.

  Returns:
    The record with `image` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  picture = as_picture(record, "random_gray")
  if picture.mode == "L" or rng.random() >= prob:
    return record
  return {**record, "image": as_pixels(picture.convert("L").convert("RGB"))}


@every_image
def random_blur(
  record: Record,
  rng: np.random.Generator,
  *,
  prob: float = 0.5,
  sigma: tuple[float, float] = (0.1, 2.0),
) -> Record:
  """Blurs by a Gaussian with probability `prob`.

  Args:
    record: `image` uint8 `[H, W, C]`.
    rng: the randomness.
    prob: probability of blurring.
    sigma: smallest and largest std in pixels, drawn uniformly.

  Returns:
    The record with `image` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  picture = as_picture(record, "random_blur")
  if rng.random() >= prob:
    return record
  blur = ImageFilter.GaussianBlur(rng.uniform(*sigma))
  return {**record, "image": as_pixels(picture.filter(blur))}


@every_image
def random_solarize(
  record: Record,
  rng: np.random.Generator,
  *,
  prob: float = 0.2,
  threshold: int = 128,
) -> Record:
  """Inverts pixel values from `threshold` up, with probability `prob`.

  Args:
    record: `image` uint8 `[H, W, C]`.
    rng: the randomness.
    prob: probability of solarizing.
    threshold: the lowest value that is inverted.

  Returns:
    The record with `image` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  picture = as_picture(record, "random_solarize")
  if rng.random() >= prob:
    return record
  return {**record, "image": as_pixels(ImageOps.solarize(picture, threshold))}


def _rotate_hue(picture: Image.Image, turn: float) -> Image.Image:
  """Rotates the hue by a share of the full circle."""
  if picture.mode == "L" or not turn:
    return picture
  hue, saturation, value = picture.convert("HSV").split()
  # Pillow's hues are bytes, which wrap around.
  hue = hue.point([(level + round(turn * 255)) % 256 for level in range(256)])
  return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
