"""Rotary positions: attention scores depend on the offset between two tokens."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax.tokens import grid_positions

# For positions on the grid of an image.
BASE = 100.0


def rotate(x: Array, positions: Array, base: Array | float = BASE) -> Array:
  """Rotates pairs of channels by angles that grow with a token's position.

  Products of rotated queries and keys depend on the offset between their positions
  alone (https://arxiv.org/abs/2104.09864). Each axis of the grid has an equal share of
  the channels, the first axis first; within a share, channel i goes with channel
  i + half (the arrangement of https://arxiv.org/abs/2211.10408).

  Args:
    x: [B, H, N, D], D a multiple of twice the number of axes A.
    positions: [B, N, A] or [N, A]; a token at 0 is left as it is.
    base: radians between neighbors run from 1 down to nearly one over it.

  Returns:
    [B, H, N, D].

  Example:
    >>> x = jnp.ones((1, 1, 1, 4))
    >>> [f"{y:.2f}" for y in rotate(x, jnp.array([[0, 1]]))[0, 0, 0]]
    ['1.00', '1.00', '-0.30', '1.38']
  """
  axes = positions.shape[-1]
  half = x.shape[-1] // (2 * axes)
  frequencies = base ** -(jnp.arange(half) / half)
  # [(B,) N, A] -> [(B,) 1, N, A, half]
  angles = jnp.expand_dims(positions[..., None] * frequencies, -4)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  # [B, H, N, D] -> [B, H, N, A, 2, half]
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], axes, 2, half)
  a, b = pairs[..., 0, :], pairs[..., 1, :]
  rotated = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-2)
  return rotated.reshape(x.shape).astype(x.dtype)


def pad_first(positions: Array | np.ndarray, count: int) -> Array:
  """Puts positions 0, of tokens that stand nowhere on a grid, before others.

  Args:
    positions: [..., N, A].
    count: how many such tokens stand first.

  Returns:
    [..., count + N, A].

  Example:
    >>> pad_first(jnp.array([[2, 3]]), 1).tolist()
    [[0, 0], [2, 3]]
  """
  return jnp.pad(positions, [(0, 0)] * (positions.ndim - 2) + [(count, 0), (0, 0)])


@dataclasses.dataclass(frozen=True)
class Rotary:
  """How a network counts positions on a grid, and what they do to queries and keys.

  Attributes:
    positions: of all patches, from the sides of the grid: [N, A].
    first: puts positions of tokens that stand nowhere on the grid before others, see
      `pad_first`.
    rotate: turns queries and keys, see `rotate`.
  """

  positions: Callable[[tuple[int, ...]], np.ndarray] = grid_positions
  first: Callable[[Array | np.ndarray, int], Array] = pad_first
  rotate: Callable[..., Array] = rotate


GRID = Rotary()
