"""Two views of an image, and the changes of color that set views apart.

What BYOL (https://arxiv.org/abs/2006.07733, appendix B) does to a view, and after it
DINO and iBOT. Each change works on uint8 images of 1 or 3 channels.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from maskjax import resolve
from maskjax.data.augment import as_picture, as_pixels
from maskjax.data.records import Record, every_image


def two_views(
  record: Record,
  rng: np.random.Generator,
  *,
  first: Sequence[str | Mapping[str, Any]],
  second: Sequence[str | Mapping[str, Any]],
) -> Record:
  """Makes two images of one, each changed in its own way.

  Args:
    record: holds `image`.
    rng: the randomness; each view has its own.
    first: transforms of the first view, each a name, or `name` and keywords.
    second: of the second view.

  Returns:
    The record with the views as `image` and `image2`.

  Example:
    >>> crop = {"name": "random_crop", "size": 4}
    >>> record = {"image": np.zeros((8, 8, 3), np.uint8)}
    >>> views = two_views(record, np.random.default_rng(0), first=[crop], second=[])
    >>> views["image"].shape, views["image2"].shape
    ((4, 4, 3), (8, 8, 3))
  """
  from maskjax.data import transforms

  views = []
  for specs, own in zip((first, second), rng.spawn(2), strict=True):
    view = record
    for spec in specs:
      transform = resolve.bind(transforms, spec)
      random = "rng" in inspect.signature(transform).parameters
      view = transform(view, own) if random else transform(view)
    views.append(view)
  return {**views[0], "image2": views[1]["image"]}


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
    prob: how often.
    brightness: greatest change of the factor 1, which is uniform.
    contrast: likewise.
    saturation: likewise; gray images have none.
    hue: greatest turn of the hue either way, as a share of the whole circle; gray
      images have none.

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
      picture = _turned(picture, rng.uniform(-hue, hue))
  return {**record, "image": as_pixels(picture)}


@every_image
def random_gray(
  record: Record, rng: np.random.Generator, *, prob: float = 0.2
) -> Record:
  """Takes the colors away with probability `prob`; args and result as above."""
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
    prob: how often.
    sigma: least and greatest standard deviation in pixels, drawn uniformly.

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
  """Inverts what is at least as bright as `threshold`, with probability `prob`."""
  picture = as_picture(record, "random_solarize")
  if rng.random() >= prob:
    return record
  return {**record, "image": as_pixels(ImageOps.solarize(picture, threshold))}


def _turned(picture: Image.Image, turn: float) -> Image.Image:
  """Turns the hue by a share of its circle."""
  if picture.mode == "L" or not turn:
    return picture
  hue, saturation, value = picture.convert("HSV").split()
  # Pillow's hues are the 256 bytes, and a byte above the last is the first again.
  hue = hue.point([(level + round(turn * 255)) % 256 for level in range(256)])
  return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
