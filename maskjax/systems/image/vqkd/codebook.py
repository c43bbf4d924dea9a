"""Codebooks of unit vectors, moving averages of the vectors that choose them.

A codebook is a dict of `vectors`, float32 [K, C] of length 1, and `counts`, float32
[K], how many vectors of a batch choose each code, on average.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.normalization import unit
from maskjax.targets import nearest

Codebook = Mapping[str, Array]


def clustered(vectors: Array, first: Array) -> dict[str, Array]:
  """A codebook of the centers of vectors, by ten rounds of spherical k-means.

  A center that no vector is nearest to stays where it is.

  Args:
    vectors: of length 1, [B, N, C].
    first: which of them are the first centers, int [K] below B N.
  """

  def move(step: int, centers: Array) -> Array:
    del step
    # One example after the other, so that not all distances are in memory.
    codes = jax.lax.map(lambda group: nearest(group, centers)[0], vectors)
    sums = members(vectors, codes, len(first), jnp.array(True))
    found = sums["counts"][:, None] > 0
    return jnp.where(found, unit(sums["vectors"]), centers)

  centers = vectors.reshape(-1, vectors.shape[-1])[first]
  centers = jax.lax.fori_loop(0, 10, move, centers)
  return {"vectors": centers, "counts": jnp.zeros(len(first))}


def members(
  vectors: Array, codes: Array, num_codes: int, where: Array
) -> dict[str, Array]:
  """Sums over the members of each code, which are added up over microbatches.

  Args:
    vectors: [B, N, C].
    codes: int [B, N].
    num_codes: K.
    where: bool, spreads to [B, N]: which vectors count.

  Returns:
    `vectors`, their sums [K, C], and `counts`, their numbers [K].
  """
  flat = vectors.reshape(-1, vectors.shape[-1])
  # A code that does not exist takes those that do not count.
  ids = jnp.where(where, codes, num_codes).ravel()
  return {
    "vectors": jax.ops.segment_sum(flat, ids, num_codes + 1)[:-1],
    "counts": jax.ops.segment_sum(jnp.ones(len(flat)), ids, num_codes + 1)[:-1],
  }


def moved(codebook: Codebook, sums: Codebook, decay: float) -> dict[str, Array]:
  """Each code's moving average of the directions of its members' means.

  A code that no vector chose stays where it is: an average with zeros would draw it to
  0, where no vector would choose it again.

  Args:
    codebook: before the step.
    sums: see `members`.
    decay: of the averages.
  """
  chosen = sums["counts"][:, None] > 0
  means = jnp.where(chosen, unit(sums["vectors"]), codebook["vectors"])
  return {
    "vectors": unit(decay * codebook["vectors"] + (1 - decay) * means),
    "counts": decay * codebook["counts"] + (1 - decay) * sums["counts"],
  }


def perplexity(codebook: Codebook) -> Array:
  """How many codes are in use: the exponential of the entropy of their counts.

  Example:
    >>> print(perplexity({"counts": jnp.array([5.0, 5.0, 0.0])}))
    2.0
  """
  counts = codebook["counts"]
  shares = counts / jnp.maximum(counts.sum(), 1e-12)
  return jnp.exp(-jax.scipy.special.xlogy(shares, shares).sum())
