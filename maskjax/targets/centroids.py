"""Patches by the centroid that they are nearest to: k-means."""

import jax
import jax.numpy as jnp
from jax import Array


def nearest(points: Array, centroids: Array) -> tuple[Array, Array]:
  """The nearest centroid of each point.

  Args:
    points: [..., P].
    centroids: [K, P].

  Returns:
    Its number, int32 [...], and the squared distance to it, float32 [...].

  Example:
    >>> ids, distances = nearest(jnp.array([[3.0], [9.0]]), jnp.array([[1.0], [8.0]]))
    >>> ids.tolist(), distances.tolist()
    ([0, 1], [4.0, 1.0])
  """
  points, centroids = points.astype(jnp.float32), centroids.astype(jnp.float32)
  # |x - c|^2 less |x|^2, which is the same for all centroids.
  products = jnp.matmul(points, centroids.T, precision="highest")
  scores = jnp.square(centroids).sum(axis=-1) - 2 * products
  distances = scores.min(axis=-1) + jnp.square(points).sum(axis=-1)
  return scores.argmin(axis=-1).astype(jnp.int32), jnp.maximum(distances, 0)


def kmeans(points: Array, centroids: Array, *, steps: int) -> Array:
  """Lloyd's algorithm: each centroid moves to the mean of the points nearest to it.

  Centroids without points take over those that are farthest from their own centroid,
  one each, as in scikit-learn.

  Args:
    points: [G, M, P]; their G groups are compared with the centroids one after the
      other, so that only M x K distances are in memory.
    centroids: where to begin, [K, P] with K at most G M.
    steps: how often to move.

  Returns:
    float32 [K, P].

  Example:
    >>> points = jnp.array([[[0.0], [1.0]], [[7.0], [8.0]]])
    >>> kmeans(points, jnp.array([[0.0], [1.0]]), steps=5).ravel().tolist()
    [0.5, 7.5]
  """
  flat = points.reshape(-1, points.shape[-1]).astype(jnp.float32)
  count = len(centroids)

  def move(step: int, centroids: Array) -> Array:
    del step
    ids, distances = jax.lax.map(lambda group: nearest(group, centroids), points)
    ids = ids.ravel()
    sizes = jnp.zeros(count, jnp.int32).at[ids].add(1)
    # The empty ones first; as many of the farthest points become theirs.
    order = jnp.argsort(sizes > 0, stable=True)
    far = jax.lax.top_k(distances.ravel(), count)[1]
    moves = jnp.arange(count) < (sizes == 0).sum()
    ids = ids.at[far].set(jnp.where(moves, order, ids[far]))
    sizes = jnp.zeros(count).at[ids].add(1)
    sums = jnp.zeros_like(centroids).at[ids].add(flat)
    means = sums / jnp.maximum(sizes, 1)[:, None]
    return jnp.where(sizes[:, None] > 0, means, centroids)

  return jax.lax.fori_loop(0, steps, move, centroids.astype(jnp.float32))
