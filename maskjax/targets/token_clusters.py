"""Clusters of a vocabulary's tokens, by the vectors of its tokens."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from maskjax import storage
from maskjax.data.token_vectors import token_vectors
from maskjax.errors import UserError
from maskjax.masking.substitutes import Clusters
from maskjax.targets.centroids import kmeans, nearest


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
