"""RandAugment and TrivialAugment: random changes of color and shape, by Pillow."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from maskjax.data.pictures import Fill, affine, as_picture, as_pixels, fill_color
from maskjax.data.records import Record, every_image

# An operation takes the image, its strength in 0 to 1, a random sign and the gray
# of pixels that come from outside.
Operation = Callable[[Image.Image, float, int, Fill], Image.Image]


def _rotate(image: Image.Image, degrees: float, fill: Fill) -> Image.Image:
  fillcolor = fill_color(image, fill)
  return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fillcolor)


def _solarize_add(image: Image.Image, add: int) -> Image.Image:
  table = [min(255, level + add) if level < 128 else level for level in range(256)]
  return image.point(table * len(image.getbands()))


def _enhance(enhancer: Callable[[Image.Image], Any]) -> Operation:
  return lambda x, m, sign, fill: enhancer(x).enhance(max(0.1, 1 + sign * 0.9 * m))


# The "increasing" set of timm, where a greater magnitude is always a greater
# change. `m` is the strength.
_OPERATIONS: dict[str, Operation] = {
  "autocontrast": lambda x, m, sign, fill: ImageOps.autocontrast(x),
  "equalize": lambda x, m, sign, fill: ImageOps.equalize(x),
  "invert": lambda x, m, sign, fill: ImageOps.invert(x),
  "rotate": lambda x, m, sign, fill: _rotate(x, sign * 30 * m, fill),
  # timm would keep no bit at the greatest strength, a black image; Pillow refuses.
  "posterize": lambda x, m, sign, fill: ImageOps.posterize(x, max(1, 4 - int(4 * m))),
  "solarize": lambda x, m, sign, fill: ImageOps.solarize(x, 256 - int(256 * m)),
  "solarize_add": lambda x, m, sign, fill: _solarize_add(x, int(110 * m)),
  "color": _enhance(ImageEnhance.Color),
  "contrast": _enhance(ImageEnhance.Contrast),
  "brightness": _enhance(ImageEnhance.Brightness),
  "sharpness": _enhance(ImageEnhance.Sharpness),
  "shear_x": lambda x, m, sign, fill: affine(x, (1, sign * 0.3 * m, 0, 0, 1, 0), fill),
  "shear_y": lambda x, m, sign, fill: affine(x, (1, 0, 0, sign * 0.3 * m, 1, 0), fill),
  "translate_x": lambda x, m, sign, fill: affine(
    x, (1, 0, sign * 0.45 * m * x.width, 0, 1, 0), fill
  ),
  "translate_y": lambda x, m, sign, fill: affine(
    x, (1, 0, 0, 0, 1, sign * 0.45 * m * x.height), fill
  ),
}


@every_image
def rand_augment(
  record: Record,
  rng: np.random.Generator,
  *,
  num_ops: int = 2,
  magnitude: float = 9.0,
  magnitude_std: float = 0.5,
  prob: float = 0.5,
  fill: Fill = 128,
) -> Record:
  """Applies random operations of one strength (Cubuk et al. 2020).

  The defaults are MAE's for fine-tuning, `rand-m9-mstd0.5-inc1` in timm: each of
  `num_ops` operations is drawn with replacement out of fifteen, applied with
  probability `prob`, at a strength drawn around `magnitude`.

  Args:
    record: `image` uint8 `[H, W, C]` of 1 or 3 channels.
    rng: the randomness.
    num_ops: number of operations.
    magnitude: the mean strength, from 0 to 10.
    magnitude_std: the std of the strength.
    prob: probability that an operation is applied.
    fill: of pixels from outside the image, a gray level or one for each channel.

  Returns:
    The record with `image` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  picture = as_picture(record, "rand_augment")
  for name in rng.choice(list(_OPERATIONS), num_ops):
    applied = rng.random() < prob
    strength = float(np.clip(rng.normal(magnitude, magnitude_std), 0, 10)) / 10
    sign = int(rng.choice((-1, 1)))
    if applied:
      picture = _OPERATIONS[name](picture, strength, sign, fill)
  return {**record, "image": as_pixels(picture)}


# TrivialAugment's wide set, as torchvision has it: strengths of 0 to 1.
_WIDE: dict[str, Operation] = {
  "identity": lambda x, m, sign, fill: x,
  "shear_x": lambda x, m, sign, fill: affine(x, (1, sign * 0.99 * m, 0, 0, 1, 0), fill),
  "shear_y": lambda x, m, sign, fill: affine(x, (1, 0, 0, sign * 0.99 * m, 1, 0), fill),
  "translate_x": lambda x, m, sign, fill: affine(
    x, (1, 0, sign * int(32 * m), 0, 1, 0), fill
  ),
  "translate_y": lambda x, m, sign, fill: affine(
    x, (1, 0, 0, 0, 1, sign * int(32 * m)), fill
  ),
  "rotate": lambda x, m, sign, fill: _rotate(x, sign * 135 * m, fill),
  "brightness": lambda x, m, sign, fill: _changed(ImageEnhance.Brightness, x, m, sign),
  "color": lambda x, m, sign, fill: _changed(ImageEnhance.Color, x, m, sign),
  "contrast": lambda x, m, sign, fill: _changed(ImageEnhance.Contrast, x, m, sign),
  "sharpness": lambda x, m, sign, fill: _changed(ImageEnhance.Sharpness, x, m, sign),
  "posterize": lambda x, m, sign, fill: ImageOps.posterize(x, 8 - round(6 * m)),
  "solarize": lambda x, m, sign, fill: ImageOps.solarize(x, round(255 * (1 - m))),
  "autocontrast": lambda x, m, sign, fill: ImageOps.autocontrast(x),
  "equalize": lambda x, m, sign, fill: ImageOps.equalize(x),
}


def _changed(
  enhancer: Callable[[Image.Image], Any], image: Image.Image, m: float, sign: int
) -> Image.Image:
  return enhancer(image).enhance(1 + sign * 0.99 * m)


@every_image
def trivial_augment(
  record: Record, rng: np.random.Generator, *, fill: Fill = 0
) -> Record:
  """Applies one random operation of a random strength.

  (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158, its wide set.)

  Args:
    record: `image` uint8 `[H, W, C]` of 1 or 3 channels.
    rng: the randomness.
    fill: of pixels from outside the image, a gray level or one for each channel.

  Returns:
    The record with `image` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.
  """
  picture = as_picture(record, "trivial_augment")
  name = str(rng.choice(list(_WIDE)))
  strength, sign = rng.integers(31) / 30, int(rng.choice((-1, 1)))
  return {**record, "image": as_pixels(_WIDE[name](picture, strength, sign, fill))}
