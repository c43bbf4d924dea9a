"""Patches that are cut out with gaps between them."""

import re

import numpy as np
import pytest

from maskjax.data.transforms import spaced_patches
from maskjax.errors import UserError


def test_each_patch_lies_somewhere_in_its_cell():
  image = np.arange(20 * 15 * 2).reshape(20, 15, 2).astype(np.float32)
  corners, rng = [], np.random.default_rng(0)
  for _ in range(20):
    kept = spaced_patches({"image": image}, rng, patch_size=3, gap=2)["image"]
    assert kept.shape == (12, 9, 2)
    for row, column in np.ndindex(4, 3):
      patch = kept[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
      top, left = np.argwhere(image[..., 0] == patch[0, 0, 0])[0]
      np.testing.assert_array_equal(patch, image[top : top + 3, left : left + 3])
      corners.append((int(top) - 5 * row, int(left) - 5 * column))
  # Any of 2x2 corners, so that at least a pixel lies between any two, equally often.
  assert {*corners} == {(0, 0), (0, 1), (1, 0), (1, 1)}
  # 240 draws of 0 or 1: the mean of them deviates by 0.03.
  np.testing.assert_allclose(np.mean(corners, axis=0), 0.5, atol=0.1)


@pytest.mark.parametrize(
  "patch_size, gap, message",
  [
    (3, 0, "gap=0: expected at least 1 pixel"),
    ((4, 3), 2, "cells of 6x5, patch_size and gap=2, do not tile an image of 20x15"),
  ],
)
def test_mistakes_are_named(patch_size, gap, message):
  record = {"image": np.zeros((20, 15, 1), np.float32)}
  with pytest.raises(UserError, match=re.escape(f"spaced_patches: {message}")):
    spaced_patches(record, np.random.default_rng(0), patch_size=patch_size, gap=gap)
