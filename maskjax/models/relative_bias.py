"""Relative positions as a learned bias of attention, on grids of any rank."""

import math
from collections.abc import Sequence

import numpy as np
from flax import linen as nn
from jax import Array

from maskjax.models.initialization import ZEROS
from maskjax.tokens import grid_positions


class RelativeBias(nn.Module):
  """A bias of attention for each offset between two positions and each head.

  https://arxiv.org/abs/2103.14030, section 3.2.

  Attributes:
    grid: sides of the grid of tokens, as many as it has axes; N is their product.
    heads: number of heads H.
    class_token: whether a token without a position stands first; it has biases of its
      own: to all positions, from them, and to itself.
    init_table: draws the biases at first.
  """

  grid: tuple[int, ...]
  heads: int
  class_token: bool = True
  init_table: nn.initializers.Initializer = ZEROS

  @nn.compact
  def __call__(self) -> Array:
    """float32 [H, 1 + N, 1 + N], or [H, N, N] without a class token."""
    ids = relative_ids(self.grid)
    count = math.prod(2 * side - 1 for side in self.grid)
    if self.class_token:
      ids = np.pad(ids, ((1, 0), (1, 0)))
      ids[0, :], ids[:, 0], ids[0, 0] = count, count + 1, count + 2
      count += 3
    table = self.param("table", self.init_table, (count, self.heads))
    return table[ids].transpose(2, 0, 1)


def relative_ids(grid: Sequence[int]) -> np.ndarray:
  """Numbers the offsets between two positions of a grid.

  Args:
    grid: sides of the grid, as many as it has axes; N is their product.

  Returns:
    int [N, N], from each position to each other, below the product of 2 S - 1 over all
    sides S; the offset along the last axis runs fastest.

  Example:
    >>> relative_ids((3,)).tolist()
    [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
  """
  sides, positions = np.array(grid), grid_positions(grid)
  # [N, N, A] -> [N, N]
  offsets = positions[:, None] - positions[None] + sides - 1
  return np.ravel_multi_index(tuple(np.moveaxis(offsets, -1, 0)), 2 * sides - 1)
