"""Vectors of tokens from their co-occurrence in texts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from maskjax.data.text import read_documents, read_vocabulary


def token_vectors(
  *,
  documents: str | Mapping[str, Any],
  tokenizer: str | Mapping[str, Any],
  width: int = 64,
  window: int = 5,
) -> np.ndarray:
  """Vectors of tokens, similar for tokens that occur next to the same tokens.

  The truncated singular value decomposition of the positive pointwise mutual
  information of tokens and their neighbors: in closed form what word2vec fits
  (https://arxiv.org/abs/1402.3722 and Levy and Goldberg, "Neural word embedding as
  implicit matrix factorization", 2014).

  Args:
    documents: see `maskjax.data.text.text`.
    tokenizer: see there.
    width: length D of a vector; less where there are fewer tokens.
    window: greatest distance of neighbors, in tokens.

  Returns:
    float32 [V, D], of norm 1; 0 for tokens that do not occur with others.
  """
  vocabulary = read_vocabulary(tokenizer)
  ids = [found.ids for found in vocabulary.encode(read_documents(documents))]
  return vectors_of(ids, len(vocabulary), width=width, window=window)


def vectors_of(
  texts: list[np.ndarray], size: int, *, width: int, window: int
) -> np.ndarray:
  """Vectors of tokens, see `token_vectors`.

  Args:
    texts: token ids, int [T] each.
    size: number of tokens V of the vocabulary.
    width: length D of a vector.
    window: greatest distance of neighbors, in tokens.

  Returns:
    float32 [V, D].
  """
  information = mutual_information(texts, size, window=window)
  width = min(width, size - 1)
  # Without a start vector the solver draws a random one.
  left, scales, _ = svds(information, k=width, v0=np.ones(size))
  vectors = left * np.sqrt(scales)
  # The solver returns noise instead of zeros.
  seen = np.asarray(information.sum(axis=1)).ravel() > 0
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  vectors = np.where(seen[:, None], vectors / np.maximum(lengths, 1e-12), 0)
  return vectors.astype(np.float32)


def mutual_information(
  texts: list[np.ndarray], size: int, *, window: int
) -> sparse.csr_matrix:
  """Positive pointwise mutual information: `max(0, log(p(a, b) / (p(a) p(b))))`.

  Args:
    texts: token ids, int [T] each.
    size: number of tokens V of the vocabulary.
    window: greatest distance of neighbors, in tokens.

  Returns:
    [V, V], sparse.
  """
  counts = sparse.csr_matrix((size, size))
  for apart in range(1, window + 1):
    pairs = [(ids[:-apart], ids[apart:]) for ids in texts if len(ids) > apart]
    if pairs:
      a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
      ones = np.ones(len(a))
      counts = counts + sparse.csr_matrix((ones, (a, b)), shape=(size, size))
  counts = (counts + counts.T).tocoo()
  of_token = np.asarray(counts.sum(axis=1)).ravel()
  expected = of_token[counts.row] * of_token[counts.col] / of_token.sum()
  information = np.log(counts.data / expected)
  kept = information > 0
  entries = (information[kept], (counts.row[kept], counts.col[kept]))
  return sparse.csr_matrix(entries, shape=(size, size))
