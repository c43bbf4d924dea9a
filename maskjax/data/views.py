"""Views of one image: as chains of transforms make them, or two cameras."""

import math
from collections.abc import Sequence

import numpy as np

from maskjax.data.pictures import affine, as_picture, as_pixels
from maskjax.data.records import Record, Transform, apply
from maskjax.errors import UserError


def two_views(
  record: Record,
  rng: np.random.Generator,
  *,
  first: Sequence[Transform],
  second: Sequence[Transform],
  local: Sequence[Transform] = (),
  num_local: int = 0,
) -> Record:
  """Makes two views of one image, each by its own transforms, and smaller ones.

  Args:
    record: holds `image`.
    rng: the randomness; each view draws from its own child of it.
    first: the transforms of the first view. A config names them like others, see
      `maskjax.data.bind_transform`.
    second: the transforms of the second view.
    local: the transforms of further views, all of one size: crops of small parts.
    num_local: how many of these to make.

  Returns:
    The record with the views as `image` and `image2`, and the further ones, where
    there are such, as `local` [num_local, h, w, C].

  Raises:
    UserError: `num_local` is below 0, or without transforms that make such views.

  Example:
    >>> import functools
    >>> from maskjax.data import center_crop
    >>> crop = functools.partial(center_crop, size=4)
    >>> record = {"image": np.zeros((8, 8, 3), np.uint8)}
    >>> views = two_views(record, np.random.default_rng(0), first=[crop], second=[])
    >>> views["image"].shape, views["image2"].shape
    ((4, 4, 3), (8, 8, 3))
  """
  if num_local < 0 or (num_local > 0) != bool(local):
    raise UserError(
      f"two_views: num_local={num_local}: expected above 0 with transforms as `local`, "
      "and 0 without"
    )
  rng1, rng2, *rest = rng.spawn(2 + num_local)
  view1, view2 = apply(first, record, rng1), apply(second, record, rng2)
  views = {**view1, "image2": view2["image"]}
  if num_local:
    views["local"] = np.stack([apply(local, record, own)["image"] for own in rest])
  return views


def second_view(
  record: Record,
  rng: np.random.Generator,
  *,
  degrees: float = 15.0,
  translate: float = 0.1,
  scale: Sequence[float] = (0.8, 1.25),
  fill: int = 0,
) -> Record:
  """Adds as `image2` the image under a random affine map, like another camera's.

  Stands in for a second photograph where a source has no pairs.

  Args:
    record: `image` uint8 `[H, W, C]` of 1 or 3 channels.
    rng: the randomness.
    degrees: largest rotation about the center, either way.
    translate: largest shift, as a share of each side.
    scale: smallest and largest scale factor, drawn log-uniformly.
    fill: the gray level of pixels from outside the image.

  Returns:
    The record with `image2` uint8 `[H, W, C]`.

  Raises:
    UserError: the image is not uint8 of 1 or 3 channels.

  Example:
    >>> record = {"image": np.zeros((8, 8, 1), np.uint8)}
    >>> second_view(record, np.random.default_rng(0))["image2"].shape
    (8, 8, 1)
  """
  picture = as_picture(record, "second_view")
  angle = math.radians(rng.uniform(-degrees, degrees))
  size = math.exp(rng.uniform(*np.log(scale)))
  right, down = rng.uniform(-translate, translate, 2) * (picture.width, picture.height)
  # Pillow takes the inverse of the map, about the center.
  cos, sin = math.cos(angle) / size, math.sin(angle) / size
  middle_x, middle_y = picture.width / 2, picture.height / 2
  from_x, from_y = middle_x + right, middle_y + down
  rows = (
    *(cos, sin, middle_x - cos * from_x - sin * from_y),
    *(-sin, cos, middle_y + sin * from_x - cos * from_y),
  )
  return {**record, "image2": as_pixels(affine(picture, rows, fill))}
