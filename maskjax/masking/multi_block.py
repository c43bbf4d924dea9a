"""Multi-block masks: several target blocks, and one context block less all of them."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.masking.mask import rows_and_columns
from maskjax.masking.selection import highest


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiBlock:
  """The masks of I-JEPA (https://arxiv.org/abs/2301.08243, section 3).

  Target blocks lie anywhere and may overlap; the context is a large block less all of
  them. The paper draws one size of target blocks for a batch, and truncates the
  contexts to the smallest among its examples. Here each example draws its own sizes,
  and the numbers of patches depend on the grid only: of each target block K patches are
  predicted, drawn uniformly, where K is the area of the smallest target block; and the
  context has a given number of patches. Where the context block has fewer, others
  outside the target blocks are visible as well, then patches of target blocks that are
  not predicted. Predicted patches are never visible.

  Attributes:
    num_targets: number of target blocks T.
    target_scale: smallest and largest area of a target block, as a share of the grid's.
    target_aspect: smallest and largest ratio of a target block's height to its width.
    context_scale: smallest and largest area of the square context block, as a share of
      the grid's.
  """

  num_targets: int = 4
  target_scale: Sequence[float] = (0.15, 0.2)
  target_aspect: Sequence[float] = (0.75, 1.5)
  context_scale: Sequence[float] = (0.85, 1.0)

  def __post_init__(self) -> None:
    """Checks the ranges.

    Raises:
      UserError: no target block, or a range that is not ascending and above 0.
    """
    if self.num_targets < 1:
      raise UserError(f"num_targets={self.num_targets}: expected at least 1")
    for key in ("target_scale", "target_aspect", "context_scale"):
      values, most = getattr(self, key), math.inf if key == "target_aspect" else 1
      if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        raise UserError(
          f"{key}={tuple(values)}: expected the smallest and the largest, above 0"
          + ("" if most == math.inf else " and at most 1")
        )

  def num_masked(self, grid: Sequence[int], context_ratio: float) -> int:
    """The number of patches outside the context.

    Args:
      grid: rows and columns of patches.
      context_ratio: share of the patches that is the context.

    Raises:
      UserError: the context is empty, or leaves too few patches to predict.
    """
    length = math.prod(grid)
    visible = int(length * context_ratio)
    predicted = self.num_targets * self.block_size(grid)
    if not 0 < visible <= length - predicted:
      raise UserError(
        f"context_ratio={context_ratio}: a context of {visible} of {length} patches: "
        f"expected at least 1 and at most {length - predicted}, as up to {predicted} "
        "are predicted"
      )
    return length - visible

  def block_size(self, grid: Sequence[int]) -> int:
    """The number of patches K that are predicted of each target block."""
    return max(1, int(math.prod(grid) * self.target_scale[0]))

  def __call__(self, key: Array, grid: Sequence[int], num_masked: int) -> Array:
    """Masks all patches outside the context: a `maskjax.masking.Sampler`.

    Raises:
      UserError: the grid does not have two sides.

    Example:
      >>> int(MultiBlock()(jax.random.key(0), (14, 14), 147).sum())
      147
    """
    blocks, predicted, context, noise = self._draw(key, grid)
    inside = blocks.any(axis=0)
    score = jnp.where(inside, 0, 2) + (context & ~inside) - 4 * predicted.any(axis=0)
    return ~highest(score + noise, math.prod(grid) - num_masked)

  def targets(self, key: Array, grid: Sequence[int]) -> Array:
    """The indices of the predicted patches, for the key that drew the context.

    Args:
      key: the example's key.
      grid: rows and columns of patches.

    Returns:
      int32 [T, K], ascending within each block.

    Example:
      >>> MultiBlock().targets(jax.random.key(0), (14, 14)).shape
      (4, 29)
    """
    _, predicted, _, _ = self._draw(key, grid)
    size = self.block_size(grid)
    order = jnp.argsort(~predicted, axis=1, stable=True)
    return order[:, :size].astype(jnp.int32)

  def _draw(self, key: Array, grid: Sequence[int]) -> tuple[Array, Array, Array, Array]:
    """Target blocks and predicted patches, [T, N]; the context block and noise, [N]."""
    of_context, of_targets, of_choice, of_noise = jax.random.split(key, 4)
    size, length = self.block_size(grid), math.prod(grid)

    def target(key: Array) -> Array:
      return rectangle(
        key, grid, scale=self.target_scale, aspect=self.target_aspect, min_area=size
      )

    blocks = jax.vmap(target)(jax.random.split(of_targets, self.num_targets))
    chance = jax.random.uniform(of_choice, blocks.shape)
    predicted = jax.vmap(lambda score: highest(score, size))(blocks + chance)
    context = rectangle(of_context, grid, scale=self.context_scale, aspect=(1.0, 1.0))
    return blocks, predicted, context, jax.random.uniform(of_noise, (length,))


def rectangle(
  key: Array,
  grid: Sequence[int],
  *,
  scale: Sequence[float],
  aspect: Sequence[float],
  min_area: int = 1,
) -> Array:
  """A random rectangle of tokens, at a uniformly random position.

  One uniform number decides on both area and aspect ratio, as in I-JEPA's code: a
  larger block is also taller for its width. No block is as long as the grid.

  Args:
    key: the randomness.
    grid: rows and columns of tokens; N is their product.
    scale: smallest and largest area, as a share of the grid's.
    aspect: smallest and largest ratio of height to width.
    min_area: number of tokens that the rounded rectangle has at least.

  Returns:
    bool [N].

  Raises:
    UserError: the grid does not have two sides.
  """
  rows, columns = rows_and_columns(grid, "multi-block masks")
  of_size, of_top, of_left = jax.random.split(key, 3)
  chance = jax.random.uniform(of_size)
  area = jnp.floor(rows * columns * (scale[0] + chance * (scale[1] - scale[0])))
  ratio = aspect[0] + chance * (aspect[1] - aspect[0])
  # A block of `min_area` may need the whole of a side.
  height = jnp.round(jnp.sqrt(area * ratio))
  height = jnp.minimum(height, max(1, rows - 1))
  height = jnp.maximum(height, math.ceil(min_area / columns))
  width = jnp.round(jnp.sqrt(area / ratio))
  width = jnp.minimum(width, max(1, columns - 1))
  width = jnp.maximum(width, jnp.ceil(min_area / height))
  top = jnp.floor(jax.random.uniform(of_top) * (rows - height + 1))
  left = jnp.floor(jax.random.uniform(of_left) * (columns - width + 1))
  row, column = jnp.arange(rows)[:, None], jnp.arange(columns)
  inside = (row >= top) & (row < top + height)
  return (inside & (column >= left) & (column < left + width)).ravel()
