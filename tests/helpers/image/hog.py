"""Histograms of oriented gradients in NumPy and SciPy, from the papers' words."""

import numpy as np
from scipy import ndimage


def histograms(images, cell_size, orientations):
  """[B, H, W, C] to [B, rows, columns, C, orientations], in float64."""
  right, down = np.zeros((2, *images.shape))
  for b, c in np.ndindex(images.shape[0], images.shape[3]):
    plane = images[b, ..., c].astype(np.float64)
    right[b, ..., c] = ndimage.sobel(plane, axis=1, mode="mirror")
    down[b, ..., c] = ndimage.sobel(plane, axis=0, mode="mirror")
  degrees = np.degrees(np.arctan2(right, down)) % 180
  length = np.sqrt(right**2 + down**2)
  p, q = cell_size
  batch, height, width, channels = images.shape
  cells = np.zeros((batch, height // p, width // q, channels, orientations))
  for b, row, column, c in np.ndindex(cells.shape[:-1]):
    cell = b, slice(row * p, (row + 1) * p), slice(column * q, (column + 1) * q), c
    bins, _ = np.histogram(
      degrees[cell], orientations, range=(0, 180), weights=length[cell]
    )
    cells[b, row, column, c] = bins / max(np.linalg.norm(bins), 1e-12)
  return cells
