"""Histograms of oriented gradients as targets."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax.errors import UserError
from maskjax.tokens import patchify, unpatchify
from maskjax.tokens.patches import grid_of

EPSILON = 1e-12
SMALLEST_GLYPH = 8  # cells are drawn at least this many pixels high and wide


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hog:
  """The `histograms` of the cells of a patch, a `maskjax.targets.Target`.

  The histograms are those of the whole image: what a patch's edge shows depends on
  its neighbors.

  Attributes:
    patch_size: (height, width) in pixels.
    cell_size: (height, width) in pixels; divides the patch.
    channels: values a pixel; each has a histogram of its own.
    orientations: bins of a histogram.
  """

  patch_size: tuple[int, ...]
  cell_size: tuple[int, ...]
  channels: int
  orientations: int = 9

  is_pixels = False

  def __post_init__(self) -> None:
    """Refuses cells that do not fill the patch, and histograms of nothing."""
    (p, q), (rows, columns) = self.patch_size, self.cell_size
    if min(rows, columns) < 1 or p % rows or q % columns:
      raise UserError(
        f"cell_size={rows}x{columns}: expected a divisor of patch_size={p}x{q}"
      )
    if self.orientations < 1:
      raise UserError(f"orientations={self.orientations}: expected a positive integer")

  @property
  def cells(self) -> tuple[int, ...]:
    """Rows and columns of cells in a patch."""
    (p, q), (rows, columns) = self.patch_size, self.cell_size
    return p // rows, q // columns

  @property
  def size(self) -> int:
    """Bins of all histograms of a patch."""
    rows, columns = self.cells
    return rows * columns * self.channels * self.orientations

  def __call__(self, images: Array) -> Array:
    """float32 [B, H, W, C] to [B, N, T]."""
    cells = histograms(images, cell_size=self.cell_size, orientations=self.orientations)
    # [B, R, S, C, K] -> [B, R, S, C * K] -> [B, N, T]
    return patchify(cells.reshape(*cells.shape[:3], -1), self.cells)

  def draw(self, values: Array, images: Array) -> Array:
    """Draws each bin of a cell as a line along its edges, as bright as it is full.

    Where cells have fewer than 8 pixels on a side, all is enlarged by a whole number:
    float32 [B, Z * H, Z * W, C].
    """
    grid = grid_of(images.shape[1:3], self.patch_size)
    cells = unpatchify(values, grid=grid, patch_size=self.cells)
    # [B, R, S, C * K] -> [B, R, S, C, K]
    cells = cells.reshape(*cells.shape[:3], self.channels, self.orientations)
    zoom = -(-SMALLEST_GLYPH // min(self.cell_size))
    p, q = (side * zoom for side in self.cell_size)
    # [B, R, S, C, K] * [P, Q, 1, K] -> [B, R, S, P, Q, C]: of lines that cross, the
    # brighter one.
    of_bins = jnp.clip(cells, 0, 1)[:, :, :, None, None]
    drawn = (of_bins * lines((p, q), self.orientations)[:, :, None]).max(axis=-1)
    rows, columns = cells.shape[1:3]
    # [B, R, S, P, Q, C] -> [B, R * S, P * Q * C] -> [B, H * Z, W * Z, C]
    drawn = drawn.reshape(len(drawn), rows * columns, p * q * self.channels)
    drawn = unpatchify(drawn, grid=(rows, columns), patch_size=(p, q))
    low, high = images.min(), images.max()
    return low + (high - low) * drawn


def histograms(
  images: Array, *, cell_size: tuple[int, ...], orientations: int = 9
) -> Array:
  """Histograms of oriented gradients, as MaskFeat takes them.

  Dalal and Triggs (2005), section 6, with the choices of MaskFeat and its authors'
  program (https://arxiv.org/abs/2112.09133, section 3.2): the gradients of each channel
  by themselves, by Sobel's filters of 3x3 pixels, on an image that is mirrored at its
  outermost pixels; no signs of directions; each pixel votes with its gradient's length
  for the one bin that its direction lies in; each cell's histogram of a channel over
  its own length. Bin k holds directions between k and k + 1 times pi / orientations,
  from downwards toward the right. A cell without gradients has an empty histogram.

  Args:
    images: float [B, H, W, C], of at least 2x2 pixels.
    cell_size: (height, width) in pixels; divides the image.
    orientations: number of bins K, which share 180 degrees.

  Returns:
    float32 [B, H / height, W / width, C, K].

  Example:
    >>> edge = jnp.zeros((1, 4, 4, 1)).at[:, 2:].set(1)  # brighter downwards
    >>> histograms(edge, cell_size=(4, 4)).ravel().tolist()
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
  """
  right, down = gradients(images)
  # Turned by half a turn where they point to the left, or straight up: a rounded angle
  # of pi would fall into the last bin, or beyond it.
  turned = (right < 0) | ((right == 0) & (down < 0))
  right, down = jnp.where(turned, -right, right), jnp.where(turned, -down, down)
  angle = jnp.arctan2(right, down) / jnp.pi * orientations
  bins = jnp.clip(jnp.floor(angle), 0, orientations - 1)
  chosen = bins[..., None] == jnp.arange(orientations)
  votes = jnp.where(chosen, jnp.hypot(right, down)[..., None], 0)
  rows, columns = grid_of(images.shape[1:3], cell_size)
  p, q = cell_size
  # [B, H, W, C, K] -> [B, R, P, S, Q, C, K] -> [B, R, S, C, K]
  votes = votes.reshape(len(votes), rows, p, columns, q, *votes.shape[3:])
  cells = votes.sum(axis=(2, 4))
  length = jnp.linalg.norm(cells, axis=-1, keepdims=True)
  return cells / jnp.maximum(length, EPSILON)


def gradients(images: Array) -> tuple[Array, Array]:
  """To the right and downwards, by Sobel's filters: [B, H, W, C] to two such, float32.

  Differences come before sums, so that a flat surface has gradients of 0, not of
  rounding.
  """
  sides = ((0, 0), (1, 1), (1, 1), (0, 0))
  x = jnp.pad(images.astype(jnp.float32), sides, mode="reflect")
  right, down = x[:, :, 2:] - x[:, :, :-2], x[:, 2:] - x[:, :-2]
  return (
    right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:],
    down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:],
  )


def lines(size: tuple[int, ...], orientations: int) -> np.ndarray:
  """Lines through the middle of a cell, across the gradients of each bin.

  Args:
    size: (height, width) of the cell in pixels.
    orientations: number of bins K, see `histograms`.

  Returns:
    float32 [height, width, K], from 0 to 1.
  """
  angles = (np.arange(orientations) + 0.5) * np.pi / orientations
  y = np.arange(size[0])[:, None, None] - (size[0] - 1) / 2
  x = np.arange(size[1])[:, None] - (size[1] - 1) / 2
  across = np.abs(x * np.sin(angles) + y * np.cos(angles))
  along = np.abs(x * np.cos(angles) - y * np.sin(angles))
  half = min(size) / 2
  drawn = np.clip(1.5 - across, 0, 1) * np.clip(half - along, 0, 1)
  return drawn.astype(np.float32)
