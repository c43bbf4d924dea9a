"""Relative positions as DeBERTa and NEZHA have them, apart from content."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from maskjax.models.rotary import rotate

_WAVE_BASE = 10_000.0


class Relative(NamedTuple):
  """The positions of tokens relative to each other.

  Attributes:
    vectors: of each distance, [R, D], learned.
    ids: which of them is that from each query to each key, int32 [B, N, K].
  """

  vectors: Array
  ids: Array


class Waves(NamedTuple):
  """Sines and cosines of relative positions, added to keys and values.

  https://arxiv.org/abs/1909.00204, section 2.2, whose table is not needed: the wave of
  a distance is that of the key's position, rotated by the query's.

  Attributes:
    positions: of the tokens, int32 [B, N].
    offset: what a query's own position has as its number in the table.
  """

  positions: Array
  offset: int

  def table(self, depth: int) -> Array:
    """Sines, then cosines, of the positions: float32 [B, 1, N, depth]."""
    half = depth // 2
    frequencies = _WAVE_BASE ** -(jnp.arange(half) / half)
    angles = self.positions[:, None, :, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

  def scores(self, query: Array) -> Array:
    """Products of queries and distances, to add to the scores.

    Args:
      query: [B, H, N, D], scaled.

    Returns:
      float32 [B, H, N, N].
    """
    turned = rotate(query, self.offset - self.positions[..., None], _WAVE_BASE)
    table = self.table(query.shape[-1])[:, 0].astype(query.dtype)
    return jnp.einsum(
      "bhnd,bkd->bhnk", turned, table, preferred_element_type=jnp.float32
    )

  def sums(self, weights: Array, depth: int) -> Array:
    """The distances by the weights of attention, to add to the sums of values.

    Args:
      weights: [B, H, N, N].
      depth: channels of a head.

    Returns:
      [B, H, N, depth].
    """
    table = self.table(depth)[:, 0].astype(weights.dtype)
    found = jnp.einsum("bhnk,bkd->bhnd", weights, table)
    return rotate(found, self.positions[..., None] - self.offset, _WAVE_BASE)


def disentangled(
  query: Array, key: Array, far: tuple[Array, Array], ids: Array
) -> Array:
  """Scores between content and relative positions, in both directions.

  https://arxiv.org/abs/2006.03654, equation 4, whose layers for queries and keys are
  those of content here, as in DeBERTa-v2.

  Args:
    query: [B, H, N, D], scaled.
    key: [B, H, K, D].
    far: queries, scaled as well, and keys made of `Relative.vectors`: [1, H, R, D].
    ids: see `Relative`.

  Returns:
    float32 [B, H, N, K], to add to the scores.
  """

  def scores(tokens: Array, distances: Array) -> Array:
    # [B, H, N, D], [H, R, D] -> [B, H, N, R]
    return jnp.einsum(
      "bhnd,hrd->bhnr", tokens, distances[0], preferred_element_type=jnp.float32
    )

  of_keys = jnp.take_along_axis(scores(query, far[1]), ids[:, None], axis=-1)
  swapped = ids.swapaxes(1, 2)[:, None]
  of_queries = jnp.take_along_axis(scores(key, far[0]), swapped, axis=-1)
  return of_keys + of_queries.swapaxes(2, 3)


def buckets(offsets: Array, *, count: int, most: int) -> Array:
  """Numbers distances, the far ones together in ranges that grow with their logarithm.

  Args:
    offsets: int [...], how many positions a query comes after a key.
    count: of numbers for either direction, S; 0 numbers each distance by itself.
    most: the distance that has the last number.

  Returns:
    int32 [...], from 0 to 2 S - 1; with a `count` of 0, S is `most`.

  Example:
    >>> buckets(jnp.array([-9, -2, 0, 1, 2, 3, 9]), count=4, most=16).tolist()
    [1, 2, 4, 5, 6, 7, 7]
  """
  if not count:
    return jnp.clip(offsets + most, 0, 2 * most - 1).astype(jnp.int32)
  near = count // 2
  size = jnp.maximum(jnp.abs(offsets), near)
  # A whole number of the logarithms must not be rounded up by a rounding error.
  share = jnp.log(size / near) / math.log((most - 1) / near) * (near - 1)
  far = jnp.ceil(share - 1e-5) + near
  found = jnp.where(jnp.abs(offsets) <= near, offsets, jnp.sign(offsets) * far)
  return jnp.clip(found + count, 0, 2 * count - 1).astype(jnp.int32)
