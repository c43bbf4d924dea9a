"""Pictures."""

import numpy as np

from maskjax import plots


def test_smaller_images_are_drawn_as_large_as_the_largest():
  small = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
  large = np.repeat(np.repeat(small, 16, axis=1), 16, axis=2)
  drawn = plots.side_by_side({"small": small, "large": large})
  side = plots.GAP + 64
  assert drawn.shape == (16 + side + plots.GAP, 2 * side + plots.GAP, 3)
  tiles = drawn[16 + plots.GAP : -plots.GAP]
  first, second = tiles[:, plots.GAP : side], tiles[:, side + plots.GAP : 2 * side]
  np.testing.assert_array_equal(first, second)
