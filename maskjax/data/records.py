"""What a source is, and what its records hold.

A source is anything with a length that returns a record, a dict of arrays, for an
index. Records of images hold `"image"`, uint8 or float32 `[H, W, C]`, where there are
pairs of images also `"image2"`, and where there are labels `"label"`, an int32 scalar.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from maskjax.errors import UserError

Record = dict[str, np.ndarray]
# Of a record, or of a record and an `rng`, see `maskjax.data.transforms`.
Transform = Callable[..., Record]


class Source(Protocol):
  """What a pipeline reads: records by index, from 0 to `len(source) - 1`.

  Error messages show its `repr`, so it should be short.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


def is_random(transform: Transform) -> bool:
  """Whether a transform takes a generator, as a parameter named `rng`."""
  return "rng" in inspect.signature(transform).parameters


def apply(
  transforms: Sequence[Transform], record: Record, rng: np.random.Generator
) -> Record:
  """Applies transforms in turn; the random ones draw from one generator."""
  for transform in transforms:
    record = transform(record, rng) if is_random(transform) else transform(record)
  return record


def every_image(transform: Transform) -> Transform:
  """Extends a transform of a record's `image` to its `image2`, where it has one.

  A random transform draws again for the second image.
  """

  @functools.wraps(transform)
  def transform_all(record: Record, *rng: Any, **keywords: Any) -> Record:
    record = transform(record, *rng, **keywords)
    if "image2" not in record:
      return record
    second = transform({**record, "image": record["image2"]}, *rng, **keywords)
    return {**record, "image2": second["image"]}

  return transform_all


def get_image(record: Record, user: str) -> np.ndarray:
  """The record's image, checked.

  Args:
    record: a record.
    user: the transform that needs it, for the error message.

  Returns:
    uint8 or float32 `[H, W, C]`.

  Raises:
    UserError: the record has no image, or one of another shape or dtype.
  """
  if "image" not in record:
    raise UserError(f"{user} needs records with an 'image', got {sorted(record)}")
  image = record["image"]
  if image.ndim != 3 or image.dtype not in (np.uint8, np.float32):
    raise UserError(
      f"{user} needs an image of uint8 or float32 [H, W, C], got {image.dtype} "
      f"{list(image.shape)}"
    )
  return image
