"""Rotary positions: places that attention sees as differences."""

import jax.numpy as jnp
from jax import Array

# Of places in images.
BASE = 100.0


def rotate(x: Array, places: Array, base: Array | float = BASE) -> Array:
  """Turns pairs of channels by angles that grow with a token's place.

  Products of rotated queries and keys depend on the difference of their places
  alone (https://arxiv.org/abs/2104.09864). Each axis of the grid has an equal share of
  the channels, the first axis first; within a share, channel i goes with channel
  i + half (the arrangement of https://arxiv.org/abs/2211.10408).

  Args:
    x: [B, H, N, D], D a multiple of twice the number of axes A.
    places: [B, N, A] or [N, A]; a token at 0 is left as it is.
    base: radians between neighbors run from 1 down to nearly one over it.

  Returns:
    [B, H, N, D].

  Example:
    >>> x = jnp.ones((1, 1, 1, 4))
    >>> [f"{y:.2f}" for y in rotate(x, jnp.array([[0, 1]]))[0, 0, 0]]
    ['1.00', '1.00', '-0.30', '1.38']
  """
  axes = places.shape[-1]
  half = x.shape[-1] // (2 * axes)
  frequencies = base ** -(jnp.arange(half) / half)
  # [(B,) N, A] -> [(B,) 1, N, A, half]
  angles = jnp.expand_dims(places[..., None] * frequencies, -4)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  # [B, H, N, D] -> [B, H, N, A, 2, half]
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], axes, 2, half)
  first, second = pairs[..., 0, :], pairs[..., 1, :]
  turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-2)
  return turned.reshape(x.shape).astype(x.dtype)
