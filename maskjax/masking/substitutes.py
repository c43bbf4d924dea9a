"""What stands in place of tokens that are substituted: others of the vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
  """A vocabulary in clusters, none of which is empty.

  Attributes:
    of_token: int32 [V], the cluster of each token; 0 of those that are never drawn.
    members: int32 [W], the tokens that may be drawn, cluster by cluster.
    starts: int32 [K], where each cluster begins in `members`.
    sizes: int32 [K], how many tokens it has.
  """

  of_token: np.ndarray
  members: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray

  @classmethod
  def of(cls, numbers: np.ndarray, tokens: np.ndarray, *, size: int) -> "Clusters":
    """Clusters by their numbers, of which some may be missing.

    Args:
      numbers: int [W], of each of `tokens`.
      tokens: int [W], those that may be drawn.
      size: number of tokens V.

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
    """A token of each of some clusters, uniformly: int [...] to int32 [...]."""
    starts, sizes = (jnp.asarray(a)[clusters] for a in (self.starts, self.sizes))
    place = jax.random.randint(key, clusters.shape, 0, sizes)
    return jnp.asarray(self.members)[starts + place]


def confusing(
  key: Array, tokens: Array, clusters: Clusters, confusions: Array, *, beta: float
) -> Array:
  """Substitutes from the clusters that a discriminator took for the original's before.

  C-RTS (https://arxiv.org/abs/2309.08272): the row of `confusions` of the token's own
  cluster, brought to 0 to 1, is the logits of the cluster to draw from.

  Args:
    key: the example's key.
    tokens: the originals, int [N].
    clusters: of the vocabulary.
    confusions: [K, K], how often substitutes from the second cluster for tokens of the
      first one passed, less how often they were found out.
    beta: by what the logits are multiplied; 0 draws all clusters alike.

  Returns:
    int32 [N].
  """
  of_cluster, of_token = jax.random.split(key)
  rows = preference(confusions, beta)[jnp.asarray(clusters.of_token)[tokens]]
  return clusters.draw(of_token, jax.random.categorical(of_cluster, rows))


def preference(confusions: Array, beta: float) -> Array:
  """Logits of clusters to draw from, see `confusing`: [K, K] to float32 [K, K].

  Example:
    >>> preference(jnp.array([[1, 1], [0, 4]]), 2.0).tolist()
    [[0.0, 0.0], [0.0, 2.0]]
  """
  low = confusions.min(axis=1, keepdims=True)
  spread = confusions.max(axis=1, keepdims=True) - low
  return beta * (confusions - low) / jnp.maximum(spread, 1)
