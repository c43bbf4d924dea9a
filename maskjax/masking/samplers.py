"""Mask samplers: `sample(key, grid, num_masked) -> bool [N]`, of one example.

`random` and `aligned` take grids of any rank; the others need rows and columns.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.masking.mask import rows_and_columns
from maskjax.masking.noise import blue, green, purple, red
from maskjax.masking.selection import highest

__all__ = [
  "aligned",
  "blockwise",
  "blue",
  "green",
  "inverse_block",
  "purple",
  "random",
  "red",
]


def random(key: Array, grid: Sequence[int], num_masked: int) -> Array:
  """Masks tokens uniformly at random, without replacement.

  The tokens with the smallest noise stay visible, as in MAE
  (https://arxiv.org/abs/2111.06377, section 3).

  Args:
    key: the example's key.
    grid: sides of the token grid; N is their product.
    num_masked: how many tokens to mask.

  Returns:
    bool [N], exactly `num_masked` True.

  Example:
    >>> int(random(jax.random.key(0), (4, 4), 12).sum())
    12
  """
  return highest(jax.random.uniform(key, (math.prod(grid),)), num_masked)


def aligned(
  key: Array, grid: Sequence[int], num_masked: int, *, unit: int | Sequence[int] = 2
) -> Array:
  """Masks whole units of several tokens, uniformly at random, without replacement.

  As SimMIM does (https://arxiv.org/abs/2111.09886, section 3.2). The units tile the
  grid; `num_masked_in_units` returns counts that are multiples of a unit's tokens.

  Args:
    key: the example's key.
    grid: sides of the token grid; N is their product.
    num_masked: how many tokens to mask, a multiple of the tokens of a unit.
    unit: side of a unit in tokens, or one side per axis of the grid.

  Returns:
    bool [N], exactly `num_masked` True.

  Raises:
    UserError: the unit does not divide the grid, or `num_masked` is no multiple of its
      tokens.

  Example:
    >>> aligned(jax.random.key(0), (2, 4), 4).reshape(2, 4).tolist()
    [[False, False, True, True], [False, False, True, True]]
  """
  sides, units = _units(grid, unit)
  size = math.prod(sides)
  if num_masked % size:
    raise UserError(
      f"num_masked={num_masked}: expected a multiple of {size}, the tokens of a unit"
    )
  masked = random(key, units, num_masked // size).reshape(units)
  for axis, side in enumerate(sides):
    masked = jnp.repeat(masked, side, axis=axis)
  return masked.ravel()


def num_masked_in_units(
  grid: Sequence[int], unit: int | Sequence[int], mask_ratio: float
) -> int:
  """The number of masked tokens under a ratio of masked units, rounded up.

  Args:
    grid: sides of the token grid.
    unit: see `aligned`.
    mask_ratio: share of the units to mask.

  Raises:
    UserError: the unit does not divide the grid, or the ratio masks all units or none.

  Example:
    >>> num_masked_in_units((14, 14), 2, 0.6)  # 30 of 49 units
    120
  """
  sides, units = _units(grid, unit)
  count = math.prod(units)
  masked = math.ceil(count * mask_ratio) if 0 < mask_ratio < 1 else count
  if not masked < count:
    raise UserError(
      f"mask_ratio={mask_ratio}: expected a number above 0 that leaves at least one "
      f"of {count} units visible"
    )
  return masked * math.prod(sides)


def blockwise(
  key: Array,
  grid: Sequence[int],
  num_masked: int,
  *,
  min_patches: int = 16,
  min_aspect: float = 0.3,
  attempts: int = 10,
) -> Array:
  """Masks rectangles, one after the other, until `num_masked` tokens are masked.

  As BEiT does (https://arxiv.org/abs/2106.08254, algorithm 1): the area is uniform
  between `min_patches` and the number of tokens left to mask, the aspect ratio
  log-uniform between `min_aspect` and its inverse. A rectangle that is too large, or
  masks nothing new, is drawn again. After ten such rectangles in a row the rest is
  masked token by token, uniformly, as in BEiT v2 (https://arxiv.org/abs/2208.06366);
  BEiT masks fewer tokens then, and CAE goes on (https://arxiv.org/abs/2202.03026).

  Args:
    key: the example's key.
    grid: rows and columns of the token grid; N is their product.
    num_masked: how many tokens to mask.
    min_patches: smallest area of a rectangle, in tokens.
    min_aspect: smallest aspect ratio of a rectangle.
    attempts: how many rectangles in a row may not fit.

  Returns:
    bool [N], exactly `num_masked` True.

  Raises:
    UserError: the grid does not have two sides.

  Example:
    >>> int(blockwise(jax.random.key(0), (14, 14), 75).sum())
    75
  """
  rows, columns = rows_and_columns(grid, "blockwise masks")
  row, column = jnp.arange(rows)[:, None], jnp.arange(columns)

  def rectangle(key: Array, left: Array) -> Array:
    keys = jax.random.split(key, 4)
    # Also where fewer tokens are left: the area is between the two numbers then.
    area = min_patches + jax.random.uniform(keys[0]) * (left - min_patches)
    limit = math.log(1 / min_aspect)
    aspect = jnp.exp(jax.random.uniform(keys[1], minval=-limit, maxval=limit))
    height, width = jnp.round(jnp.sqrt(jnp.array([area * aspect, area / aspect])))
    top = jnp.floor(jax.random.uniform(keys[2]) * (rows - height + 1))
    first = jnp.floor(jax.random.uniform(keys[3]) * (columns - width + 1))
    inside = (row >= top) & (row < top + height)
    inside &= (column >= first) & (column < first + width)
    return inside & (height < rows) & (width < columns)

  def draw(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    masked, key, failures = state
    key, of_rectangle = jax.random.split(key)
    left = num_masked - masked.sum()
    more = rectangle(of_rectangle, left) & ~masked
    fits = (more.sum() > 0) & (more.sum() <= left)
    return masked | (more & fits), key, jnp.where(fits, 0, failures + 1)

  def unfinished(state: tuple[Array, Array, Array]) -> Array:
    masked, _, failures = state
    return (masked.sum() < num_masked) & (failures < attempts)

  rest_key, key = jax.random.split(key)
  nothing = jnp.zeros((rows, columns), bool)
  masked, _, _ = jax.lax.while_loop(unfinished, draw, (nothing, key, jnp.int32(0)))
  noise = jax.random.uniform(rest_key, (rows * columns,))
  return highest(masked.ravel() + noise, num_masked)


def _units(
  grid: Sequence[int], unit: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Sides of a unit in tokens, and of the grid in units."""
  sides = (unit,) * len(grid) if isinstance(unit, int) else tuple(unit)
  if (
    len(sides) != len(grid)
    or min(sides) < 1
    or any(length % side for length, side in zip(grid, sides, strict=True))
  ):
    raise UserError(
      f"units of {'x'.join(map(str, sides))} tokens do not divide the grid of "
      f"{'x'.join(map(str, grid))}: expected divisors of its sides"
    )
  return sides, tuple(n // side for n, side in zip(grid, sides, strict=True))


def inverse_block(
  key: Array, grid: Sequence[int], num_masked: int, *, min_aspect: float = 0.5
) -> Array:
  """Masks all tokens outside one block, which wraps around the edges of the grid.

  As CAPI does (https://arxiv.org/abs/2502.08769, section 3). Of a block that does not
  wrap, the tokens in the middle of the grid are visible more often than those at its
  edges; with the wrap, all tokens are equally likely to be masked.

  Args:
    key: the example's key.
    grid: rows and columns of the token grid; N is their product.
    num_masked: how many tokens to mask.
    min_aspect: smallest aspect ratio of the block, which is drawn log-uniformly.

  Returns:
    bool [N], exactly `num_masked` True; the last row of the block may be incomplete.

  Raises:
    UserError: the grid does not have two sides.

  Example:
    >>> inverse_block(jax.random.key(0), (3, 4), 10).sum()
    Array(10, dtype=int32)
  """
  rows, columns = rows_and_columns(grid, "inverse block masks")
  shown = rows * columns - num_masked
  keys = jax.random.split(key, 3)
  # No block is longer than the grid; a small margin absorbs rounded logarithms.
  low = max(math.log(min_aspect), math.log(shown / columns**2))
  high = min(-math.log(min_aspect), math.log(rows**2 / shown))
  aspect = jnp.exp(jax.random.uniform(keys[0], minval=low, maxval=high))
  width = jnp.ceil(jnp.sqrt(shown / aspect) - 1e-4)
  width = jnp.clip(width, math.ceil(shown / rows), columns)
  # Rows and columns are counted from the first token of the block.
  row = (jnp.arange(rows) - jax.random.randint(keys[1], (), 0, rows)) % rows
  column = (jnp.arange(columns) - jax.random.randint(keys[2], (), 0, columns)) % columns
  order = row[:, None] * width + column
  inside = (column < width) & (order < shown)
  return ~inside.ravel()
