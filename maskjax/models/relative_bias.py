"""Relative positions as a learned bias of attention, on grids of any rank."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError
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


class BlockBiases(nn.Module):
  """A `RelativeBias` for each block of a stack.

  Attributes:
    grid: see `RelativeBias`.
    heads: see `RelativeBias`.
    depth: number of blocks.
    class_token: see `RelativeBias`.
    scan: whether the blocks are scanned, whose parameters are stacked.
  """

  grid: tuple[int, ...]
  heads: int
  depth: int
  class_token: bool = True
  scan: bool = False

  @nn.compact
  def __call__(self) -> list[Array]:
    """The bias of each block, see `RelativeBias`."""
    fields: dict[str, Any] = dict(
      grid=self.grid, heads=self.heads, class_token=self.class_token
    )
    if not self.scan:
      return [RelativeBias(**fields, name=f"block_{i}")() for i in range(self.depth)]
    stacked = nn.vmap(
      RelativeBias,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      axis_size=self.depth,
    )
    return list(stacked(**fields, name="blocks")())


def resized(table: Array, count: int) -> np.ndarray:
  """A table of `RelativeBias` for a square grid of another size.

  Each head's biases are a smooth function of the offset. Far offsets, of which there
  are more in a larger grid, are spaced by a geometric series, so that near ones stay
  as they are (https://arxiv.org/abs/2106.08254 does so in its code).

  Args:
    table: [K, H], of a square grid, with or without a class token.
    count: rows of the new table, of a square grid too.

  Returns:
    float32 [count, H].

  Raises:
    UserError: one of the two is not of a square grid, or only one has a class token.

  Example:
    >>> resized(np.ones((25, 2)), 49).shape  # from a grid of 3x3 to one of 4x4
    (49, 2)
  """
  from scipy import interpolate  # is slow to import

  found = {}
  for extra in (0, 3):
    sides = [math.isqrt(max(0, rows - extra)) for rows in (len(table), count)]
    if all(
      side % 2 and side**2 == rows - extra
      for side, rows in zip(sides, (len(table), count), strict=True)
    ):
      found = {"old": sides[0], "new": sides[1], "extra": extra}
  if not found:
    raise UserError(
      f"relative positions: a table of {len(table)} rows cannot be resized to {count}: "
      "expected those of two square grids"
    )
  old, new, extra = found["old"], found["new"], found["extra"]
  whole = np.asarray(table, np.float32)
  own, rest = whole[: old * old], whole[old * old :]
  assert len(rest) == extra
  # Offsets of the old table in units of the new one: [-d_k .. -d_1, 0, d_1 .. d_k].
  ratio = _ratio(old // 2, new // 2)
  steps = np.cumsum(ratio ** np.arange(old // 2))
  at = np.concatenate([-steps[::-1], [0.0], steps])
  wanted, degree = np.arange(new) - new // 2, min(3, old - 1)
  heads = [
    interpolate.RectBivariateSpline(at, at, head, kx=degree, ky=degree)(wanted, wanted)
    for head in own.T.reshape(-1, old, old)
  ]
  fitted = np.stack(heads, axis=-1).reshape(new * new, -1)
  return np.concatenate([fitted, rest]).astype(np.float32)


def _ratio(terms: int, total: int) -> float:
  """The ratio of a geometric series from 1 on, so that its terms sum to a total."""
  low, high = 1.01, 1.5
  while high - low > 1e-6:
    middle = (low + high) / 2
    if (1 - middle**terms) / (1 - middle) > total:
      high = middle
    else:
      low = middle
  return low


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
