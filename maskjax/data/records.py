"""What a source is, and what its records hold.

A source is anything with a length that gives a record, a dict of arrays, for an
index. Records of images hold `"image"`, uint8 or float32 `[H, W, C]`, where there are
pairs of images also `"image2"`, and where there are labels `"label"`, an int32 scalar.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from maskjax.errors import UserError

Record = dict[str, np.ndarray]


class Source(Protocol):
  """What a pipeline reads: records by index, from 0 to `len(source) - 1`.

  Its `repr` stands in error messages, so it should be short.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


def every_image(transform: Callable[..., Record]) -> Callable[..., Record]:
  """Makes of a transform of a record's `image` one that transforms its `image2` too.

  A random one draws anew for the second image.
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
    user: the transform that asks, for the message.

  Returns:
    uint8 or float32 `[H, W, C]`.

  Raises:
    UserError: the record has no image, or one of another form.
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
