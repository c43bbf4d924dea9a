"""Pixels as targets."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.tokens import patchify, unpatchify
from maskjax.tokens.patches import grid_of

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
  """The pixels themselves, a `maskjax.targets.Target`.

  Attributes:
    patch_size: sides of a patch, of images (height, width) in pixels.
    channels: values a pixel.
    normalized: take `normalized_pixels`.
    cell_size: sides of parts of a patch that stand one after the other and are
      normalized each by itself; the whole patch when None.
  """

  patch_size: tuple[int, ...]
  channels: int
  normalized: bool = False
  cell_size: tuple[int, ...] | None = None

  is_pixels = True

  def __post_init__(self) -> None:
    """Refuses patches of one value, which have no std."""
    values = math.prod(self._cell) * self.channels
    if self.normalized and values < 2:
      sides = "x".join(map(str, self._cell))
      raise UserError(
        "norm_pix_loss=True: expected patches of at least 2 values, "
        f"patch_size={sides} with channels={self.channels} has {values}"
      )

  @property
  def size(self) -> int:
    """Values in a patch."""
    return math.prod(self.patch_size) * self.channels

  @property
  def _cell(self) -> tuple[int, ...]:
    return self.cell_size or self.patch_size

  @property
  def _cells(self) -> tuple[int, ...]:
    """How many cells lie along each side of a patch."""
    sides = zip(self.patch_size, self._cell, strict=True)
    return tuple(patch // cell for patch, cell in sides)

  def __call__(self, images: Array) -> Array:
    """float32 [B, ..., C], for example [B, H, W, C], to [B, N, P]."""
    cells = patchify(images, self._cell)
    cells = normalized_pixels(cells) if self.normalized else cells
    grid = grid_of(images.shape[1:-1], self._cell)
    # Of images: [B, R * S, T] -> [B, R, S, T] -> [B, N, P]
    return patchify(cells.reshape(-1, *grid, cells.shape[-1]), self._cells)

  def draw(self, values: Array, images: Array) -> Array:
    """Gives normalized patches their own mean and std back: [B, ..., C]."""
    grid = grid_of(images.shape[1:-1], self.patch_size)
    cells = unpatchify(values, grid=grid, patch_size=self._cells)
    # Of images: [B, R, S, T] -> [B, R * S, T]
    cells = cells.reshape(len(cells), -1, cells.shape[-1])
    if self.normalized:
      mean, std = patch_statistics(patchify(images, self._cell))
      cells = cells * std + mean
    grid = grid_of(images.shape[1:-1], self._cell)
    return unpatchify(cells, grid=grid, patch_size=self._cell)


def normalized_pixels(patches: Array) -> Array:
  """Pixels less their patch's mean, over its std.

  The variance is the unbiased one, with 1e-6 added, as in MAE
  (https://arxiv.org/abs/2111.06377, section 3, `norm_pix_loss`).

  Args:
    patches: [..., P] with P of at least 2.

  Returns:
    float32 [..., P].

  Example:
    >>> normalized_pixels(jnp.array([1.0, 3.0]))
    Array([-0.7071066,  0.7071066], dtype=float32)
  """
  mean, std = patch_statistics(patches)
  return (patches - mean) / std


def patch_statistics(patches: Array) -> tuple[Array, Array]:
  """Each patch's mean and std: [..., P] to two [..., 1]."""
  patches = patches.astype(jnp.float32)
  mean = patches.mean(axis=-1, keepdims=True)
  variance = patches.var(axis=-1, keepdims=True, ddof=1)
  return mean, jnp.sqrt(variance + EPSILON)
