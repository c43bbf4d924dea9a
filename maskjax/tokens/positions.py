"""Positions of tokens on a grid of any rank, and fixed embeddings of them."""

from collections.abc import Sequence

import numpy as np

from maskjax.errors import UserError


def grid_positions(grid: Sequence[int]) -> np.ndarray:
  """The coordinates of each token of a grid, for rotary and relative positions.

  Args:
    grid: sides of the token grid, as many as it has axes A; N is their product.

  Returns:
    int [N, A], in row-major order.

  Example:
    >>> grid_positions((2, 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
  """
  return np.indices(grid).reshape(len(grid), -1).T


def sincos(grid: Sequence[int], width: int, *, spread: bool = False) -> np.ndarray:
  """Sine-cosine embeddings of the positions of a grid of any rank.

  Each axis has an equal share of the channels, the last axis of the grid first:
  sines of the position at geometrically spaced frequencies, then cosines
  (https://arxiv.org/abs/1706.03762, section 3.5, in the arrangement of
  https://arxiv.org/abs/2111.06377 for two axes).

  Args:
    grid: sides of the token grid; N is their product.
    width: number of channels D, a multiple of twice the grid's rank.
    spread: count the positions along a side so that the last one is its length, as
      Latent MIM's authors do, and not one less.

  Returns:
    float32 [N, D], positions in row-major order.

  Raises:
    UserError: the width does not divide into sines and cosines for each axis.

  Example:
    >>> sincos((2, 3), 8).shape
    (6, 8)
  """
  if width % (2 * len(grid)):
    raise UserError(
      f"width={width}: expected a multiple of {2 * len(grid)} for sine-cosine "
      f"positions on a grid of {len(grid)} axes"
    )
  frequencies = width // (2 * len(grid))
  omega = 1.0 / 10000 ** (np.arange(frequencies, dtype=np.float64) / frequencies)
  channels = []
  for side, coordinate in reversed([*zip(grid, grid_positions(grid).T, strict=True)]):
    if spread:
      coordinate = coordinate * side / max(1, side - 1)
    angle = coordinate[:, None] * omega  # [N, frequencies]
    channels += [np.sin(angle), np.cos(angle)]
  return np.concatenate(channels, axis=1).astype(np.float32)
