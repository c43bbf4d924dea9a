"""Pixel values of images: to floats, normalized, erased."""

import math
from collections.abc import Sequence

import numpy as np

from maskjax.data.records import Record, every_image, get_image
from maskjax.errors import UserError


@every_image
def to_float(record: Record) -> Record:
  """Turns a uint8 image in 0 to 255 into float32 in 0 to 1.

  Args:
    record: `image` uint8 `[H, W, C]`.

  Returns:
    The record with `image` float32 `[H, W, C]`.

  Raises:
    UserError: the image is float32 already.
  """
  image = get_image(record, "to_float")
  if image.dtype != np.uint8:
    raise UserError(f"to_float needs a uint8 image, got {image.dtype}")
  return {**record, "image": image.astype(np.float32) / np.float32(255)}


@every_image
def normalize(
  record: Record, *, mean: float | Sequence[float], std: float | Sequence[float]
) -> Record:
  """Subtracts `mean` and divides by `std`, per channel.

  Args:
    record: `image` float32 `[H, W, C]`.
    mean: one number, or one for each channel.
    std: likewise.

  Returns:
    The record with `image` float32 `[H, W, C]`.

  Raises:
    UserError: the image is uint8, or `mean` or `std` has another number of channels.
  """
  image = get_image(record, "normalize")
  if image.dtype != np.float32:
    raise UserError("normalize needs a float32 image: put 'to_float' before it")
  for name, numbers in (("mean", mean), ("std", std)):
    if np.ndim(numbers) and np.shape(numbers) != image.shape[2:]:
      raise UserError(
        f"normalize: {name}={numbers} for an image of {image.shape[2]} channels"
      )
  image = (image - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
  return {**record, "image": image}


@every_image
def random_erasing(
  record: Record,
  rng: np.random.Generator,
  *,
  prob: float = 0.25,
  scale: tuple[float, float] = (0.02, 1 / 3),
  ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> Record:
  """Replaces a random rectangle by normal noise (Zhong et al. 2020).

  The noise has the mean 0 and std 1 of a normalized image, so that this belongs
  after `normalize`.

  Args:
    record: `image` float32 `[H, W, C]`.
    rng: the randomness.
    prob: probability of erasing.
    scale: smallest and largest area, as a share of the image's.
    ratio: smallest and largest ratio of height to width, drawn log-uniformly.

  Returns:
    The record with `image` float32 `[H, W, C]`.

  Raises:
    UserError: the image is not float32.
  """
  image = get_image(record, "random_erasing")
  if image.dtype != np.float32:
    raise UserError("random_erasing needs float32: put it after 'normalize'")
  if rng.random() >= prob:
    return record
  for _ in range(10):
    area = rng.uniform(*scale) * image.shape[0] * image.shape[1]
    aspect = math.exp(rng.uniform(*np.log(ratio)))
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if height < image.shape[0] and width < image.shape[1]:
      top = rng.integers(image.shape[0] - height + 1)
      left = rng.integers(image.shape[1] - width + 1)
      noise = rng.standard_normal((height, width, image.shape[2]), np.float32)
      erased = image.copy()
      erased[top : top + height, left : left + width] = noise
      return {**record, "image": erased}
  return record
