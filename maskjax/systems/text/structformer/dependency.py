"""From distances and heights to a tree: which token depends on which, softly.

StructFormer, https://arxiv.org/abs/2012.00857, sections 4.2 to 4.4. A row may hold
several documents, each a tree of its own.
"""

import jax
import jax.numpy as jnp
from jax import Array

# The distance at the end of a document, above all heights.
_END = 1e9
# Of heights in a document no ratio of exponentials is smaller than e to the minus this.
_LOWEST = 60.0


def calibrate(
  distance: Array, height: Array, segment: Array, *, shared: bool = False
) -> Array:
  """Lowers distances until no constituent is cut off from all others.

  Of a part of a document that is not all of it, one of the two distances around it is
  then at most the largest height in it.

  Args:
    distance: between each token and the next of its row, float32 [B, N].
    height: of the tokens, float32 [B, N].
    segment: int [B, N], which document a token is of; 0 for padding.
    shared: lower the distances of all documents by as much as any of them needs, and
      not each by what it needs.

  Returns:
    float32 [B, N]; at the ends of documents it is beyond all heights.
  """
  distance, margin = jax.vmap(_margins)(distance, height, segment)
  if shared:
    margin = jnp.where(segment > 0, margin, 0).max()
  return distance - margin


def _margins(distance: Array, height: Array, segment: Array) -> tuple[Array, Array]:
  """Distances of a row, far at the ends, and by how much to lower each: [N] each."""
  ends = jnp.pad(segment[1:] != segment[:-1], (0, 1), constant_values=True)
  distance = jnp.where(ends, _END, distance)
  before = jnp.pad(distance[:-1], (1, 0), constant_values=_END)
  same = segment[:, None] == segment
  # Of the part from i to j: [N, N]
  part = jnp.triu(same)
  tallest = jax.lax.cummax(jnp.where(part, height[None], -_END), axis=1)
  least = jnp.minimum(before[:, None], distance[None]) - tallest
  # A whole document has no such distances.
  least = jnp.where(part & (least < _END / 2), jnp.maximum(least, 0), 0)
  return distance, jnp.where(same, least.max(axis=1), 0).max(axis=1)


def head_probabilities(
  distance: Array, height: Array, segment: Array, scale: Array
) -> Array:
  """How likely each token depends on each other one of its row.

  A token's constituent reaches to either side over distances that are smaller than the
  token's height, and its head is the highest token in it, both in probability.

  Args:
    distance: of one row, see `calibrate`, float32 [N].
    height: float32 [N].
    segment: see `calibrate`.
    scale: of distances less heights, and of heights, float32 [2].

  Returns:
    float32 [N, N], of which the diagonal is 0.
  """
  positions = jnp.arange(len(height))
  after = positions[None] >= positions[:, None]
  earlier = positions[None] < positions[:, None]
  # How likely the constituent of i reaches over the distance after j.
  over = jax.nn.sigmoid((height[:, None] - distance[None]) * scale[0])
  # It begins at j or before it, and it ends at j or after it.
  begins = jax.lax.cummin(jnp.where(earlier, over, 1.0), axis=1, reverse=True)
  ends = jax.lax.cummin(jnp.where(after, over, 1.0), axis=1)
  ends = jnp.pad(ends[:, :-1], ((0, 0), (1, 0)), constant_values=1.0)
  # It begins at j, or it ends there.
  begins = jnp.tril(begins - jnp.pad(begins[:, :-1], ((0, 0), (1, 0))))
  ends = jnp.triu(ends - jnp.pad(ends[:, 1:], ((0, 0), (0, 1))))
  height = height * scale[1]
  same = segment[:, None] == segment
  highest = jnp.where(same, height[None], -jnp.inf).max(axis=1)
  power = jnp.exp(jnp.maximum(height - jax.lax.stop_gradient(highest), -_LOWEST))
  # One over the sum from i to j, the softmax's divisor: [N, N]
  total = jnp.cumsum(jnp.where(after, power[None], 0.0), axis=1)
  share = jnp.where(after, 1 / jnp.where(after, total, 1.0), 0.0)
  # Summed over all constituents of l that hold h. They begin at l or before it, so
  # that those with an h after l are those that end at h or later; and so to the left.
  right = jnp.cumsum((ends * (begins @ share))[:, ::-1], axis=1)[:, ::-1]
  left = jnp.cumsum(begins * (ends @ share.T), axis=1)
  found = power[None] * jnp.where(after, right, left)
  return jnp.where(positions[None] == positions[:, None], 0.0, found)
