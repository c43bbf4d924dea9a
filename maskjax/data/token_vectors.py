"""Vectors of tokens from what stands beside them in a text."""

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
  """Tokens that stand beside the same tokens have vectors of the same direction.

  Positive mutual information of tokens and their neighbors, and its largest singular
  directions: what word2vec fits (https://arxiv.org/abs/1402.3722 and Levy and Goldberg,
  "Neural word embedding as implicit matrix factorization", 2014), in closed form.

  Args:
    documents: see `maskjax.data.text.text`.
    tokenizer: see there.
    width: length D of a vector; less where there are fewer tokens.
    window: how far neighbors may be apart.

  Returns:
    float32 [V, D], of length 1; 0 of tokens that the text has not.
  """
  vocabulary = read_vocabulary(tokenizer)
  ids = [found.ids for found in vocabulary.encode(read_documents(documents))]
  return vectors_of(ids, len(vocabulary), width=width, window=window)


def vectors_of(
  texts: list[np.ndarray], size: int, *, width: int, window: int
) -> np.ndarray:
  """As `token_vectors`, of texts as ids, int [T] each, of a vocabulary of this size."""
  information = mutual_information(texts, size, window=window)
  width = min(width, size - 1)
  # The solver begins at random otherwise.
  left, scales, _ = svds(information, k=width, v0=np.ones(size))
  vectors = left * np.sqrt(scales)
  # The solver leaves noise in place of zeros.
  seen = np.asarray(information.sum(axis=1)).ravel() > 0
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  vectors = np.where(seen[:, None], vectors / np.maximum(lengths, 1e-12), 0)
  return vectors.astype(np.float32)


def mutual_information(
  texts: list[np.ndarray], size: int, *, window: int
) -> sparse.csr_matrix:
  """`max(0, log(p(a, b) / p(a) p(b)))` of tokens and neighbors: [V, V], sparse."""
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
