"""The one convention for masks: `True` means hidden.

A *sampler* draws the mask of one example:
`sample(key, grid, num_hidden) -> bool [N]`, where `grid` holds the sides of
the token grid, `N` is their product, and exactly `num_hidden` entries are True.
The caller maps it over one key an example, so that a mask depends on its
example and on nothing else: not on the batch size, the microbatch or the number
of devices.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError

Sampler = Callable[[Array, Sequence[int], int], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
  """The masks of a batch, as a table of booleans and as three index lists.

  Every example hides the same number `M` of its `N` tokens and shows
  `V = N - M`, so that an encoder may drop the hidden ones in fixed shapes.

  Attributes:
    hidden: bool [B, N], True where the token is hidden.
    visible_ids: int32 [B, V], places of the visible tokens, ascending.
    hidden_ids: int32 [B, M], places of the hidden tokens, ascending.
    restore_ids: int32 [B, N], for each place its index in the concatenation
      of visible and hidden tokens.
  """

  hidden: Array
  visible_ids: Array
  hidden_ids: Array
  restore_ids: Array

  @classmethod
  def from_hidden(cls, hidden: Array, *, num_hidden: int) -> "Mask":
    """Makes the index lists for masks that all hide the same number of tokens.

    Args:
      hidden: bool [B, N], with exactly `num_hidden` True in each row.
      num_hidden: how many tokens each row hides.

    Example:
      >>> m = Mask.from_hidden(jnp.array([[True, False, True]]), num_hidden=2)
      >>> m.visible_ids.tolist(), m.hidden_ids.tolist(), m.restore_ids.tolist()
      ([[1]], [[0, 2]], [[1, 0, 2]])
    """
    num_visible = hidden.shape[-1] - num_hidden
    order = jnp.argsort(hidden, axis=-1, stable=True).astype(jnp.int32)
    restore = jnp.where(
      hidden,
      num_visible + jnp.cumsum(hidden, axis=-1) - 1,
      jnp.cumsum(~hidden, axis=-1) - 1,
    )
    return cls(
      hidden=hidden,
      visible_ids=order[:, :num_visible],
      hidden_ids=order[:, num_visible:],
      restore_ids=restore.astype(jnp.int32),
    )

  @classmethod
  def at_most(cls, hidden: Array, *, num_hidden: int, spare: Array) -> "Mask":
    """Masks of different numbers of tokens, for encoders that drop the hidden ones.

    Where a row hides less, `hidden_ids` holds visible tokens as well, see `is_hidden`:
    first those that can be spared.

    Args:
      hidden: bool [B, N], with at most `num_hidden` True in each row.
      num_hidden: M, how many tokens no longer count as visible.
      spare: bool [B, N], tokens that mean nothing, such as filling.

    Example:
      >>> hidden = jnp.array([[True, False, False]])
      >>> spare = jnp.array([[False, False, True]])
      >>> m = Mask.at_most(hidden, num_hidden=2, spare=spare)
      >>> m.visible_ids.tolist(), m.hidden_ids.tolist(), m.is_hidden.tolist()
      ([[1]], [[0, 2]], [[True, False]])
    """
    num_visible = hidden.shape[-1] - num_hidden
    kinds = jnp.where(hidden, 2, spare.astype(jnp.int32))
    order = jnp.argsort(kinds, axis=-1, stable=True).astype(jnp.int32)
    visible = jnp.sort(order[:, :num_visible], axis=-1)
    masked = jnp.sort(order[:, num_visible:], axis=-1)
    restore = jnp.argsort(jnp.concatenate([visible, masked], axis=1), axis=-1)
    return cls(
      hidden=hidden,
      visible_ids=visible,
      hidden_ids=masked,
      restore_ids=restore.astype(jnp.int32),
    )

  @classmethod
  def uneven(cls, hidden: Array) -> "Mask":
    """Masks of different numbers of tokens, for encoders that see mask tokens.

    The index lists are empty.

    Args:
      hidden: bool [B, N].
    """
    none = jnp.zeros((hidden.shape[0], 0), jnp.int32)
    return cls(hidden=hidden, visible_ids=none, hidden_ids=none, restore_ids=none)

  @property
  def is_hidden(self) -> Array:
    """Which of `hidden_ids` are hidden: bool [B, M]; all, but after `at_most`."""
    return gather(self.hidden, self.hidden_ids)

  def inverse(self) -> "Mask":
    """Hides what is visible, and shows what is hidden.

    Example:
      >>> m = Mask.from_hidden(jnp.array([[True, False, True]]), num_hidden=2)
      >>> m.inverse().visible_ids.tolist(), m.inverse().restore_ids.tolist()
      ([[0, 2]], [[0, 2, 1]])
    """
    num_visible, num_hidden = self.visible_ids.shape[1], self.hidden_ids.shape[1]
    return Mask(
      hidden=~self.hidden,
      visible_ids=self.hidden_ids,
      hidden_ids=self.visible_ids,
      restore_ids=self.restore_ids + jnp.where(self.hidden, -num_visible, num_hidden),
    )

  def visible(self, tokens: Array) -> Array:
    """Picks the visible tokens: [B, N, ...] to [B, V, ...]."""
    return gather(tokens, self.visible_ids)

  def masked(self, tokens: Array) -> Array:
    """Picks the hidden tokens: [B, N, ...] to [B, M, ...]."""
    return gather(tokens, self.hidden_ids)

  def asking(self, keys: Array, count: int) -> "Mask":
    """The same mask, with `count` of its hidden places alone in `hidden_ids`.

    So that a system predicts some of the hidden tokens, drawn uniformly, and not all;
    `restore` needs all.

    Args:
      keys: one an example, [B].
      count: how many to keep, at most M.

    Example:
      >>> m = Mask.from_hidden(jnp.array([[True, False, True]]), num_hidden=2)
      >>> m.asking(jax.random.split(jax.random.key(0), 1), 1).hidden_ids.shape
      (1, 1)
    """

    def some(key: Array, ids: Array) -> Array:
      return jnp.sort(jax.random.choice(key, ids, (count,), replace=False))

    return dataclasses.replace(self, hidden_ids=jax.vmap(some)(keys, self.hidden_ids))

  def restore(self, visible: Array, masked: Array) -> Array:
    """Puts [B, V, ...] and [B, M, ...] back in their places: [B, N, ...]."""
    return gather(jnp.concatenate([visible, masked], axis=1), self.restore_ids)


def gather(tokens: Array, ids: Array) -> Array:
  """Picks tokens by place: [B, N, ...] and int [B, K] to [B, K, ...]."""
  return jax.vmap(lambda row, places: row[places])(tokens, ids)


def num_hidden(length: int, mask_ratio: float) -> int:
  """The number of tokens that a mask ratio hides, rounded as MAE rounds it.

  Raises:
    UserError: the ratio is outside (0, 1), or hides all tokens or none.

  Example:
    >>> num_hidden(196, 0.75)
    147
  """
  if not 0 < mask_ratio < 1:
    raise UserError(
      f"mask_ratio={mask_ratio}: expected a number between 0 and 1, both excluded"
    )
  hidden = length - int(length * (1 - mask_ratio))
  if not 0 < hidden < length:
    raise UserError(
      f"mask_ratio={mask_ratio} hides {hidden} of {length} tokens: "
      "expected at least one hidden and one visible"
    )
  return hidden


def draw(
  sampler: Sampler, keys: Array, grid: Sequence[int], *, num_hidden: int
) -> Mask:
  """Draws one mask an example: keys [B] to a `Mask` of [B, N].

  Example:
    >>> from maskjax.masking import random
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> draw(random, keys, (4, 4), num_hidden=12).visible_ids.shape
    (2, 4)
  """
  hidden = jax.vmap(lambda key: sampler(key, grid, num_hidden))(keys)
  expected = (keys.shape[0], math.prod(grid))
  if hidden.shape != expected or hidden.dtype != jnp.bool_:
    raise UserError(
      f"the mask sampler gave {hidden.dtype}{list(hidden.shape)}: "
      f"expected bool{list(expected)}, True where hidden"
    )
  return Mask.from_hidden(hidden, num_hidden=num_hidden)
