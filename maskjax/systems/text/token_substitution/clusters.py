"""Clusters of a vocabulary, and substitutes that are drawn from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax import storage
from maskjax.data.token_vectors import token_vectors
from maskjax.errors import UserError
from maskjax.targets.centroids import kmeans, nearest


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
  """A partition of a vocabulary into K clusters, none of which is empty.

  Attributes:
    of_token: int32 [V], the cluster of each token; 0 for tokens that are never drawn.
    members: int32 [W], the tokens that may be drawn, cluster by cluster.
    starts: int32 [K], the index of each cluster's first token in `members`.
    sizes: int32 [K], the number of tokens of each cluster.
  """

  of_token: np.ndarray
  members: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray

  @classmethod
  def of(cls, numbers: np.ndarray, tokens: np.ndarray, *, size: int) -> "Clusters":
    """Clusters from a cluster number for each token; unused numbers are dropped.

    Args:
      numbers: int [W], the cluster of each of `tokens`.
      tokens: int [W], the ids of the tokens that may be drawn.
      size: number of tokens V of the vocabulary.

    Example:
      >>> found = Clusters.of(np.array([7, 2, 7]), np.array([4, 5, 6]), size=7)
      >>> found.of_token.tolist(), found.members.tolist(), found.sizes.tolist()
      ([0, 0, 0, 0, 1, 0, 1], [5, 4, 6], [1, 2])
    """
    _, numbers = np.unique(numbers, return_inverse=True)
    of_token = np.zeros(size, np.int32)
    of_token[tokens] = numbers
    sizes = np.bincount(numbers).astype(np.int32)
    return cls(
      of_token=of_token,
      members=tokens[np.argsort(numbers, kind="stable")].astype(np.int32),
      starts=(np.cumsum(sizes) - sizes).astype(np.int32),
      sizes=sizes,
    )

  def __len__(self) -> int:
    return len(self.sizes)

  def draw(self, key: Array, clusters: Array) -> Array:
    """Draws a token from each given cluster, uniformly: int [...] to int32 [...]."""
    starts, sizes = (jnp.asarray(a)[clusters] for a in (self.starts, self.sizes))
    offsets = jax.random.randint(key, clusters.shape, 0, sizes)
    return jnp.asarray(self.members)[starts + offsets]


def confusing(
  key: Array, tokens: Array, clusters: Clusters, confusions: Array, *, beta: float
) -> Array:
  """Draws substitutes from clusters that a discriminator confuses with the original's.

  C-RTS (https://arxiv.org/abs/2309.08272): the logits of the cluster to draw from are
  the row of `confusions` of the token's own cluster, scaled to 0 to 1, times `beta`.

  Args:
    key: the example's key.
    tokens: int [N], the original tokens.
    clusters: of the vocabulary.
    confusions: [K, K], for tokens of the first cluster and substitutes from the second:
      how often the discriminator missed the substitute, less how often it detected it.
    beta: factor of the logits; 0 draws all clusters with equal probability.

  Returns:
    int32 [N].
  """
  of_cluster, of_token = jax.random.split(key)
  rows = preference(confusions, beta)[jnp.asarray(clusters.of_token)[tokens]]
  return clusters.draw(of_token, jax.random.categorical(of_cluster, rows))


def preference(confusions: Array, beta: float) -> Array:
  """The logits of the clusters to draw from, see `confusing`.

  Args:
    confusions: [K, K].
    beta: factor of the logits.

  Returns:
    float32 [K, K].

  Example:
    >>> preference(jnp.array([[1, 1], [0, 4]]), 2.0).tolist()
    [[0.0, 0.0], [0.0, 2.0]]
  """
  low = confusions.min(axis=1, keepdims=True)
  spread = confusions.max(axis=1, keepdims=True) - low
  return beta * (confusions - low) / jnp.maximum(spread, 1)


def token_clusters(
  spec: str | Mapping[str, Any], tokens: np.ndarray, *, size: int
) -> Clusters:
  """Reads clusters, or computes them of a text.

  Args:
    spec: a file that `numpy.save` wrote, the cluster of each token, int [V]; or the
      keywords of `maskjax.data.token_vectors.token_vectors`, and `count`, how many
      clusters its vectors make by k-means, 100 when left out.
    tokens: those that belong to clusters, int [W].
    size: number of tokens V.

  Raises:
    UserError: there is no such file, it is of another shape, or `count` is too large.
  """
  if isinstance(spec, str):
    numbers = _read(spec, size)
    return Clusters.of(numbers[tokens], tokens, size=size)
  options = dict(spec)
  count = options.pop("count", 100)
  if not 1 < count <= len(tokens):
    raise UserError(
      f"clusters.count={count}: expected from 2 to the {len(tokens)} ordinary tokens"
    )
  found = token_vectors(**options)
  if len(found) > size:
    raise UserError(
      f"clusters.tokenizer has {len(found)} tokens: expected at most vocab_size={size}"
    )
  vectors = np.zeros((size, found.shape[1]), np.float32)
  vectors[: len(found)] = found
  points = jnp.asarray(vectors[tokens])
  begin = points[np.linspace(0, len(tokens) - 1, count).astype(int)]
  centroids = kmeans(points[None], begin, steps=30)
  return Clusters.of(np.asarray(nearest(points, centroids)[0]), tokens, size=size)


def _read(path: str, size: int) -> np.ndarray:
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"clusters={path!r}: expected a file of numpy.save, there is none")
  with file.open("rb") as opened:
    numbers = np.load(opened, allow_pickle=False)
  if numbers.shape != (size,) or numbers.dtype.kind not in "iu":
    raise UserError(
      f"clusters={path!r} is {numbers.dtype}{list(numbers.shape)}: expected an int for "
      f"each of vocab_size={size} tokens"
    )
  return numbers
