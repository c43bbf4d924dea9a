"""Multi-block masks: several blocks to predict, one block of the rest to see."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.masking.samplers import highest


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiBlock:
  """The masks of I-JEPA (https://arxiv.org/abs/2301.08243, section 3).

  Target blocks lie anywhere and may overlap; the context is a large block less all of
  them. The paper draws one size of target blocks for a batch, and cuts the contexts to
  the smallest among its examples. Here each example draws sizes of its own, and counts
  depend on the grid alone: of each target block as many patches are predicted, at
  random, as the smallest scale has, and of the context a given number is seen. Where
  the block leaves fewer, others outside the target blocks are seen too, then ones
  inside that are not predicted; those that are predicted never.

  Attributes:
    num_targets: target blocks T.
    target_scale: least and largest area of a target block, by the grid's.
    target_aspect: least and largest height of a target block, by its width.
    context_scale: least and largest area of the context's square block.
  """

  num_targets: int = 4
  target_scale: Sequence[float] = (0.15, 0.2)
  target_aspect: Sequence[float] = (0.75, 1.5)
  context_scale: Sequence[float] = (0.85, 1.0)

  def __post_init__(self) -> None:
    """Refuses what no block has."""
    if self.num_targets < 1:
      raise UserError(f"num_targets={self.num_targets}: expected at least 1")
    for key in ("target_scale", "target_aspect", "context_scale"):
      values, most = getattr(self, key), math.inf if key == "target_aspect" else 1
      if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        raise UserError(
          f"{key}={tuple(values)}: expected the least and the largest, above 0"
          + ("" if most == math.inf else " and at most 1")
        )

  def num_masked(self, grid: Sequence[int], context_ratio: float) -> int:
    """How many patches are not seen, if a share of all is the context.

    Raises:
      UserError: the rest cannot hold the patches that are predicted.
    """
    length = math.prod(grid)
    seen, predicted = (
      int(length * context_ratio),
      self.num_targets * self.block_size(grid),
    )
    if not 0 < seen <= length - predicted:
      raise UserError(
        f"context_ratio={context_ratio} shows {seen} of {length} patches: expected at "
        f"least 1 and at most {length - predicted}, as up to {predicted} are predicted"
      )
    return length - seen

  def block_size(self, grid: Sequence[int]) -> int:
    """Patches K that are predicted of each target block."""
    return max(1, int(math.prod(grid) * self.target_scale[0]))

  def __call__(self, key: Array, grid: Sequence[int], num_masked: int) -> Array:
    """Masks all but the context: a `maskjax.masking.Sampler`.

    Example:
      >>> int(MultiBlock()(jax.random.key(0), (14, 14), 147).sum())
      147
    """
    blocks, predicted, context, noise = self._draw(key, grid)
    inside = blocks.any(axis=0)
    score = jnp.where(inside, 0, 2) + (context & ~inside) - 4 * predicted.any(axis=0)
    return ~highest(score + noise, math.prod(grid) - num_masked)

  def targets(self, key: Array, grid: Sequence[int]) -> Array:
    """The places that are predicted, under the key that drew the context.

    Args:
      key: the example's key.
      grid: rows and columns of patches.

    Returns:
      int32 [T, K], those of a block ascending.

    Example:
      >>> MultiBlock().targets(jax.random.key(0), (14, 14)).shape
      (4, 29)
    """
    _, predicted, _, _ = self._draw(key, grid)
    size = self.block_size(grid)
    order = jnp.argsort(~predicted, axis=1, stable=True)
    return order[:, :size].astype(jnp.int32)

  def _draw(self, key: Array, grid: Sequence[int]) -> tuple[Array, Array, Array, Array]:
    """Target blocks [T, N], what of them is predicted, the context's block, noise."""
    of_context, of_targets, of_choice, of_noise = jax.random.split(key, 4)
    size, length = self.block_size(grid), math.prod(grid)

    def target(key: Array) -> Array:
      return rectangle(
        key, grid, scale=self.target_scale, aspect=self.target_aspect, least=size
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
  least: int = 1,
) -> Array:
  """A rectangle of tokens at a random place.

  Args:
    key: of its area, aspect and place, each drawn uniformly.
    grid: rows and columns of tokens; N is their product.
    scale: least and largest area, by the grid's.
    aspect: least and largest height, by its width.
    least: smallest area in tokens, which rounding must not undercut.

  Returns:
    bool [N].
  """
  rows, columns = grid
  keys = jax.random.split(key, 4)
  area = jnp.floor(
    rows * columns * jax.random.uniform(keys[0], minval=scale[0], maxval=scale[1])
  )
  ratio = jax.random.uniform(keys[1], minval=aspect[0], maxval=aspect[1])
  height = jnp.clip(jnp.round(jnp.sqrt(area * ratio)), math.ceil(least / columns), rows)
  width = jnp.round(jnp.sqrt(area / ratio))
  width = jnp.clip(width, jnp.ceil(least / height), columns)
  top = jnp.floor(jax.random.uniform(keys[2]) * (rows - height + 1))
  left = jnp.floor(jax.random.uniform(keys[3]) * (columns - width + 1))
  row, column = jnp.arange(rows)[:, None], jnp.arange(columns)
  inside = (row >= top) & (row < top + height)
  return (inside & (column >= left) & (column < left + width)).ravel()
