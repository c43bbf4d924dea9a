"""Patches and positions, against loops over their definitions."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskjax.errors import UserError
from maskjax.tokens import grid_of, patches_of, patchify, sincos, unpatchify

SIDES = st.integers(1, 4)


def cut_by_hand(images, patch_size):
  """Row by row of patches; in a patch row by row of pixels, then channels."""
  (p, q), (_, height, width, channels) = patch_size, images.shape
  return np.array(
    [
      [
        [
          image[top + y, left + x, c]
          for y in range(p)
          for x in range(q)
          for c in range(channels)
        ]
        for top in range(0, height, p)
        for left in range(0, width, q)
      ]
      for image in images
    ],
    images.dtype,
  )


# NumPy arrays, which these functions take as well and without compiling.
@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(1, 2), SIDES, SIDES, SIDES, SIDES, st.integers(1, 5))
def test_patchify_cuts_and_unpatchify_puts_back(batch, rows, columns, p, q, channels):
  shape = (batch, rows * p, columns * q, channels)
  images = np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape)
  patches = patchify(images, (p, q))
  np.testing.assert_array_equal(patches, cut_by_hand(images, (p, q)))
  back = unpatchify(patches, grid=(rows, columns), patch_size=(p, q))
  np.testing.assert_array_equal(back, images)
  np.testing.assert_array_equal(patchify(back, (p, q)), patches)


def test_patchify_of_jax_arrays_and_of_one_side():
  images = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32)
  patches = patchify(jnp.asarray(images), 2)
  np.testing.assert_array_equal(patches, cut_by_hand(images, (2, 2)))
  np.testing.assert_array_equal(unpatchify(patches, grid=(3, 2), patch_size=2), images)


def test_clips_are_cut_in_three_axes():
  clips = np.random.default_rng(0).normal(size=(2, 4, 6, 4, 3)).astype(np.float32)
  patches = patchify(clips, (2, 3, 2))
  assert patches.shape == (2, 2 * 2 * 2, 2 * 3 * 2 * 3)
  for n, (t, y, x) in enumerate(np.ndindex(2, 2, 2)):
    tube = clips[:, 2 * t : 2 * t + 2, 3 * y : 3 * y + 3, 2 * x : 2 * x + 2]
    np.testing.assert_array_equal(patches[:, n], tube.reshape(2, -1))
  back = unpatchify(patches, grid=(2, 2, 2), patch_size=(2, 3, 2))
  np.testing.assert_array_equal(back, clips)


def test_grid_of():
  assert grid_of(224, 16) == (14, 14)
  assert grid_of((12, 8), (3, 4)) == (4, 2)
  assert grid_of((4, 12, 8), (2, 3, 4)) == (2, 4, 2)


@pytest.mark.parametrize(
  ("image_size", "patch_size", "message"),
  [
    (10, 4, "patch_size=4x4 does not divide image_size=10x10"),
    ((8, 10), 4, "patch_size=4x4 does not divide image_size=8x10"),
    ((10, 8), 4, "patch_size=4x4 does not divide image_size=10x8"),
    (8, 0, "patch_size=0x0"),
    (0, 2, "image_size=0x0: expected at least 1"),
    (-8, 2, "image_size=-8x-8: expected at least 1"),
    (8.0, 2, "size 8.0: expected one number, or"),
    ((8.0, 8), 2, r"size \(8.0, 8\): expected one number, or"),
    (8, (4, -2), "patch_size=4x-2"),
    ((3, 8, 8), (2, 4, 4), "patch_size=2x4x4 does not divide image_size=3x8x8"),
    ((4, 8, 8), (4, 4), r"size \(4, 4\): expected one number, or 3"),
  ],
)
def test_patches_that_do_not_fit(image_size, patch_size, message):
  with pytest.raises(UserError, match=message):
    grid_of(image_size, patch_size)


def test_patches_without_channels():
  with pytest.raises(UserError, match="channels=0: expected at least 1"):
    patches_of(8, 2, channels=0)


def test_images_that_do_not_fit():
  with pytest.raises(UserError, match="patch_size=4x4 does not divide image_size=8x6"):
    patchify(np.zeros((1, 8, 6, 3)), 4)


@pytest.mark.parametrize(
  ("grid", "width"), [((5,), 6), ((2, 3), 8), ((3, 2), 12), ((2, 1, 3), 12)]
)
def test_sincos_by_hand(grid, width):
  count = width // (2 * len(grid))
  table = sincos(grid, width)
  assert table.dtype == np.float32
  assert table.shape == (math.prod(grid), width)
  for n, index in enumerate(np.ndindex(*grid)):
    expected = []
    for position in reversed(index):  # columns first, as MAE has them
      angles = [position / 10000 ** (k / count) for k in range(count)]
      expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    # The last bit of a float32 near 1.
    np.testing.assert_allclose(table[n], expected, rtol=0, atol=6e-8)


@pytest.mark.parametrize("width", [192, 768, 1280])
def test_sincos_is_that_of_transformers_bit_for_bit(width):
  pytest.importorskip("torch")
  vit_mae = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
  theirs = vit_mae.build_2d_sinusoidal_position_embedding(14, 14, embed_dim=width)
  # They put the rows' half first; models that they trained have the columns' there.
  rows, columns = np.split(theirs.numpy(), 2, axis=1)
  np.testing.assert_array_equal(sincos((14, 14), width), np.hstack([columns, rows]))


@pytest.mark.parametrize(
  ("grid", "width", "multiple"), [((4,), 7, 2), ((4, 4), 6, 4), ((2, 2, 2), 8, 6)]
)
def test_widths_that_do_not_divide(grid, width, multiple):
  with pytest.raises(
    UserError, match=f"width={width}: expected a multiple of {multiple}"
  ):
    sincos(grid, width)
