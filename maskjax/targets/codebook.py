"""Codebooks of unit vectors: lookup, clustering, and averages that follow the data.

A codebook is a dict of `vectors`, float32 [K, C] of length 1, and `counts`, float32
[K], how many vectors of a batch choose each code, on average.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.models.attention import unit

Codebook = Mapping[str, Array]


def nearest(codebook: Codebook, vectors: Array) -> Array:
  """The codes of unit vectors: the highest cosine, [..., C] to int32 [...].

  Example:
    >>> nearest({"vectors": jnp.eye(2)}, jnp.array([0.6, 0.8])).item()
    1
  """
  # In full precision on every device: a code that flips is another target.
  cosines = jnp.einsum(
    "...c,kc->...k", vectors, codebook["vectors"], precision=jax.lax.Precision.HIGHEST
  )
  return cosines.argmax(axis=-1).astype(jnp.int32)


def members(vectors: Array, codes: Array, num_codes: int, where: Array) -> Codebook:
  """What the codes' members add up to, to be added to that of other vectors.

  Args:
    vectors: [..., C].
    codes: int [...].
    num_codes: K.
    where: bool [...], which vectors count.

  Returns:
    `vectors`, their sums [K, C], and `counts`, their numbers [K].
  """
  # A code that does not exist takes those that do not count.
  codes = jnp.where(where, codes, num_codes).ravel()
  flat = vectors.reshape(-1, vectors.shape[-1])
  sums = jax.ops.segment_sum(flat, codes, num_codes + 1)
  counts = jax.ops.segment_sum(jnp.ones(len(flat)), codes, num_codes + 1)
  return {"vectors": sums[:-1], "counts": counts[:-1]}


def moved(codebook: Codebook, sums: Codebook, decay: float) -> dict[str, Array]:
  """Each code's moving average of the directions of its members' means.

  A code that nobody chose stays where it is: an average with nothing would draw it
  to 0, out of reach for ever.

  Args:
    codebook: as it was.
    sums: see `members`.
    decay: of the averages.
  """
  chosen = sums["counts"][:, None] > 0
  means = jnp.where(chosen, unit(sums["vectors"]), codebook["vectors"])
  return {
    "vectors": unit(decay * codebook["vectors"] + (1 - decay) * means),
    "counts": decay * codebook["counts"] + (1 - decay) * sums["counts"],
  }


def clustered(vectors: Array, noise: Array, num_codes: int) -> dict[str, Array]:
  """A codebook of the centres of vectors, by ten rounds of spherical k-means.

  Args:
    vectors: of length 1, [..., C].
    noise: [...]; the vectors with the least are the first centres.
    num_codes: K; where there are fewer vectors, several codes begin with the same.
  """
  vectors = vectors.reshape(-1, vectors.shape[-1])
  first = jnp.argsort(noise.ravel())[jnp.arange(num_codes) % len(vectors)]
  everywhere = jnp.ones(len(vectors), bool)

  def turn(_: int, codebook: dict[str, Array]) -> dict[str, Array]:
    codes = nearest(codebook, vectors)
    return moved(codebook, members(vectors, codes, num_codes, everywhere), 0.0)

  start = {"vectors": vectors[first], "counts": jnp.zeros(num_codes)}
  return jax.lax.fori_loop(0, 10, turn, start)


def perplexity(codebook: Codebook) -> Array:
  """How many codes are in use: the exponential of the entropy of their counts.

  Example:
    >>> print(perplexity({"counts": jnp.array([5.0, 5.0, 0.0])}))
    2.0
  """
  counts = codebook["counts"]
  shares = counts / jnp.maximum(counts.sum(), 1e-12)
  return jnp.exp(-jax.scipy.special.xlogy(shares, shares).sum())
