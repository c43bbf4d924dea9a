"""Arrays for the tests of networks, and how they are compared."""

import jax
import numpy as np


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shaken(params, seed=0):
  """Parameters none of which is 0 or 1, so that each shows."""
  rng = np.random.default_rng(seed)
  return jax.tree.map_with_path(
    lambda path, leaf: np.float32(
      0.3 * rng.normal(size=leaf.shape) + (path[-1].key == "scale")
    ),
    params,
  )


def assert_close(ours, theirs, tolerance=1e-5):
  """Largest difference, relative to the largest magnitude, of each leaf."""

  def compare(path, a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, path
    size = np.abs(b).max()
    if jax.tree_util.keystr(path).endswith("['key']['bias']") and size < 1e-5:
      # Unless keys are rotated, it adds the same to all scores of a query: its
      # gradient is rounding alone.
      size = 1
    assert size > 0, path
    assert np.abs(a - b).max() <= tolerance * size, path

  jax.tree.map_with_path(compare, ours, theirs)
