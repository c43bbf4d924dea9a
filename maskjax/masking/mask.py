"""The one convention for masks: `True` means masked.

A *sampler* draws the mask of one example:
`sample(key, grid, num_masked) -> bool [N]`, where `grid` holds the sides of
the token grid, of any rank, `N` is their product, and exactly `num_masked` entries are
True. A sampler whose shapes need rows and columns refuses other grids with a
`UserError`. The caller maps a sampler over one key per example, so that a mask depends
on its example only: not on the batch size, the microbatch or the number of devices.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError

Sampler = Callable[[Array, Sequence[int], int], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
  """The masks of a batch, as booleans and as three index lists.

  In every example `M` of the `N` tokens are masked and `V = N - M` are visible, so that
  an encoder may drop the masked ones in fixed shapes.

  Attributes:
    masked: bool [B, N], True where the token is masked.
    visible_ids: int32 [B, V], indices of the visible tokens, ascending.
    masked_ids: int32 [B, M], indices of the masked tokens, ascending.
    restore_ids: int32 [B, N], for each token its index in the concatenation
      of visible and masked tokens.
  """

  masked: Array
  visible_ids: Array
  masked_ids: Array
  restore_ids: Array

  @classmethod
  def exactly(cls, masked: Array, *, num_masked: int) -> "Mask":
    """Masks with the same number of masked tokens in every row.

    Args:
      masked: bool [B, N], with exactly `num_masked` True in each row.
      num_masked: M.

    Example:
      >>> m = Mask.exactly(jnp.array([[True, False, True]]), num_masked=2)
      >>> m.visible_ids.tolist(), m.masked_ids.tolist(), m.restore_ids.tolist()
      ([[1]], [[0, 2]], [[1, 0, 2]])
    """
    num_visible = masked.shape[-1] - num_masked
    order = jnp.argsort(masked, axis=-1, stable=True).astype(jnp.int32)
    restore = jnp.where(
      masked,
      num_visible + jnp.cumsum(masked, axis=-1) - 1,
      jnp.cumsum(~masked, axis=-1) - 1,
    )
    return cls(
      masked=masked,
      visible_ids=order[:, :num_visible],
      masked_ids=order[:, num_visible:],
      restore_ids=restore.astype(jnp.int32),
    )

  @classmethod
  def at_most(cls, masked: Array, *, num_masked: int, spare: Array) -> "Mask":
    """Masks with different numbers of masked tokens, for encoders that drop them.

    In rows with fewer than `num_masked` masked tokens, `masked_ids` holds other tokens
    as well: first the spare ones, then visible ones. `is_masked` distinguishes them.

    Args:
      masked: bool [B, N], with at most `num_masked` True in each row.
      num_masked: M, how many tokens the encoder drops in every row.
      spare: bool [B, N], tokens that the encoder does not need, such as padding.

    Example:
      >>> masked = jnp.array([[True, False, False]])
      >>> spare = jnp.array([[False, False, True]])
      >>> m = Mask.at_most(masked, num_masked=2, spare=spare)
      >>> m.visible_ids.tolist(), m.masked_ids.tolist(), m.is_masked.tolist()
      ([[1]], [[0, 2]], [[True, False]])
    """
    num_visible = masked.shape[-1] - num_masked
    kinds = jnp.where(masked, 2, spare.astype(jnp.int32))
    order = jnp.argsort(kinds, axis=-1, stable=True).astype(jnp.int32)
    visible = jnp.sort(order[:, :num_visible], axis=-1)
    masked_ids = jnp.sort(order[:, num_visible:], axis=-1)
    restore = jnp.argsort(jnp.concatenate([visible, masked_ids], axis=1), axis=-1)
    return cls(
      masked=masked,
      visible_ids=visible,
      masked_ids=masked_ids,
      restore_ids=restore.astype(jnp.int32),
    )

  @classmethod
  def uneven(cls, masked: Array) -> "Mask":
    """Masks with different numbers of masked tokens, for encoders that see mask tokens.

    The index lists are empty.

    Args:
      masked: bool [B, N].
    """
    none = jnp.zeros((masked.shape[0], 0), jnp.int32)
    return cls(masked=masked, visible_ids=none, masked_ids=none, restore_ids=none)

  @property
  def is_masked(self) -> Array:
    """Which of `masked_ids` are masked: bool [B, M]; all, except after `at_most`."""
    return gather(self.masked, self.masked_ids)

  def inverse(self) -> "Mask":
    """The mask with visible and masked tokens exchanged.

    Example:
      >>> m = Mask.exactly(jnp.array([[True, False, True]]), num_masked=2)
      >>> m.inverse().visible_ids.tolist(), m.inverse().restore_ids.tolist()
      ([[0, 2]], [[0, 2, 1]])
    """
    num_visible, num_masked = self.visible_ids.shape[1], self.masked_ids.shape[1]
    return Mask(
      masked=~self.masked,
      visible_ids=self.masked_ids,
      masked_ids=self.visible_ids,
      restore_ids=self.restore_ids + jnp.where(self.masked, -num_visible, num_masked),
    )

  def take_visible(self, tokens: Array) -> Array:
    """Takes the visible tokens: [B, N, ...] to [B, V, ...]."""
    return gather(tokens, self.visible_ids)

  def take_masked(self, tokens: Array) -> Array:
    """Takes the masked tokens: [B, N, ...] to [B, M, ...]."""
    return gather(tokens, self.masked_ids)

  def subset(self, keys: Array, count: int) -> "Mask":
    """The same mask with a random subset of `masked_ids`, drawn uniformly.

    For systems that predict only some of the masked tokens. `restore` needs all.

    Args:
      keys: [B], one per example.
      count: the size of the subset, at most M.

    Example:
      >>> m = Mask.exactly(jnp.array([[True, False, True]]), num_masked=2)
      >>> m.subset(jax.random.split(jax.random.key(0), 1), 1).masked_ids.shape
      (1, 1)
    """

    def some(key: Array, ids: Array) -> Array:
      return jnp.sort(jax.random.choice(key, ids, (count,), replace=False))

    return dataclasses.replace(self, masked_ids=jax.vmap(some)(keys, self.masked_ids))

  def restore(self, visible: Array, masked: Array) -> Array:
    """Puts visible and masked tokens back in their order.

    Args:
      visible: [B, V, ...].
      masked: [B, M, ...].

    Returns:
      [B, N, ...].
    """
    return gather(jnp.concatenate([visible, masked], axis=1), self.restore_ids)


def gather(tokens: Array, ids: Array) -> Array:
  """Takes tokens by index: [B, N, ...] and int [B, K] to [B, K, ...]."""
  return jax.vmap(lambda row, ids: row[ids])(tokens, ids)


def rows_and_columns(grid: Sequence[int], user: str) -> tuple[int, int]:
  """The sides of a grid of two axes.

  Args:
    grid: sides of the token grid.
    user: what needs two axes, for the error message, for example `blockwise masks`.

  Raises:
    UserError: the grid does not have two sides.

  Example:
    >>> rows_and_columns((9,), "red masks")
    Traceback (most recent call last):
    maskjax.errors.UserError: red masks: expected a grid of rows and columns, not (9,)
  """
  if len(grid) != 2:
    raise UserError(f"{user}: expected a grid of rows and columns, not {tuple(grid)}")
  rows, columns = grid
  return rows, columns


# Which of the two numbers, masked or visible tokens, is rounded, and how.
ROUNDINGS: Mapping[str, Callable[[int, float], int]] = {
  "up": lambda length, ratio: length - int(length * (1 - ratio)),
  "down": lambda length, ratio: int(length * ratio),
  "nearest": lambda length, ratio: length - round(length * (1 - ratio)),
}


def num_masked(length: int, mask_ratio: float, rounding: str = "up") -> int:
  """The number of masked tokens under a mask ratio.

  Args:
    length: number of tokens N.
    mask_ratio: share of the tokens to mask.
    rounding: of the number: `up`, as MAE has it, `down`, or `nearest`.

  Raises:
    UserError: the ratio is outside (0, 1), or masks all tokens or none; or there is no
      such rounding.

  Example:
    >>> num_masked(196, 0.75)
    147
    >>> [num_masked(49, 0.6, rounding) for rounding in ("up", "down", "nearest")]
    [30, 29, 29]
  """
  if not 0 < mask_ratio < 1:
    raise UserError(
      f"mask_ratio={mask_ratio}: expected a number between 0 and 1, both excluded"
    )
  if rounding not in ROUNDINGS:
    raise UserError(f"rounding={rounding!r}: expected {', '.join(ROUNDINGS)}")
  masked = ROUNDINGS[rounding](length, mask_ratio)
  if not 0 < masked < length:
    raise UserError(
      f"mask_ratio={mask_ratio} masks {masked} of {length} tokens: "
      "expected at least one masked and one visible"
    )
  return masked


def draw(
  sampler: Sampler, keys: Array, grid: Sequence[int], *, num_masked: int
) -> Mask:
  """Draws one mask per example.

  Args:
    sampler: see above.
    keys: [B], one per example.
    grid: sides of the token grid; N is their product.
    num_masked: how many tokens to mask in each example.

  Returns:
    A `Mask` of [B, N].

  Raises:
    UserError: the sampler returned something other than bool [N].

  Example:
    >>> from maskjax.masking import random
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> draw(random, keys, (4, 4), num_masked=12).visible_ids.shape
    (2, 4)
  """
  masked = jax.vmap(lambda key: sampler(key, grid, num_masked))(keys)
  expected = (keys.shape[0], math.prod(grid))
  if masked.shape != expected or masked.dtype != jnp.bool_:
    raise UserError(
      f"the mask sampler returned {masked.dtype}{list(masked.shape)}: "
      f"expected bool{list(expected)}, True where masked"
    )
  return Mask.exactly(masked, num_masked=num_masked)
