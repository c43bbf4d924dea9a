"""What a source is, and what its records hold.

A source is anything with a length that gives a record, a dict of arrays, for an
index. Records of images hold `"image"`, uint8 or float32 `[H, W, C]`, and where
there are labels `"label"`, an int32 scalar.
"""

from typing import Protocol

import numpy as np

from maskjax.errors import UserError

Record = dict[str, np.ndarray]


class Source(Protocol):
  """What a pipeline reads: records by index, from 0 to `len(source) - 1`.

  Its `repr` stands in error messages, so it should be short.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


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
