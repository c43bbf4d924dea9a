"""Vectors of words, whose cosine similarity is that of the words."""

import numpy as np

from maskjax import storage
from maskjax.errors import UserError


def context_vectors(
  ids: np.ndarray,
  documents: np.ndarray,
  size: int,
  *,
  window: int = 5,
  contexts: int = 500,
  width: int = 64,
) -> np.ndarray:
  """Vectors of words by the words around them.

  The left factor of the singular value decomposition of their positive pointwise mutual
  information with the most frequent words (Levy and Goldberg,
  https://papers.nips.cc/paper/5477, section 5).

  Args:
    ids: int [W], the words of a corpus, in their order, from 0 to U - 1.
    documents: int [W], the document of each word.
    size: number of different words U.
    window: greatest distance, in words, of two words of a document that co-occur.
    contexts: number of the most frequent words, whose co-occurrence counts.
    width: length D of a vector; less where there are fewer contexts.

  Returns:
    float64 [U, D]; 0 for words that occur with none of the contexts.
  """
  frequent = np.argsort(-np.bincount(ids, minlength=size), kind="stable")[:contexts]
  column = np.full(size, -1)
  column[frequent] = np.arange(len(frequent))
  together = np.zeros(size * len(frequent))
  for apart in range(1, min(window, len(ids) - 1) + 1):
    same = documents[:-apart] == documents[apart:]
    earlier, later = ids[:-apart][same], ids[apart:][same]
    for word, context in ((earlier, column[later]), (later, column[earlier])):
      found = word[context >= 0] * len(frequent) + context[context >= 0]
      pairs, counts = np.unique(found, return_counts=True)
      together[pairs] += counts
  table = together.reshape(size, len(frequent))
  of_word, of_context = table.sum(axis=1), table.sum(axis=0)
  at = np.nonzero(table)
  ratio = table[at] * table.sum() / (of_word[at[0]] * of_context[at[1]])
  table[at] = np.maximum(np.log(ratio), 0)
  # The left factor is the table times the right singular vectors, the largest last.
  _, directions = np.linalg.eigh(table.T @ table)
  return table @ directions[:, ::-1][:, :width]


def mean_token_vectors(
  path: str, words: list[np.ndarray], vocab_size: int
) -> np.ndarray:
  """Vectors of words: the mean of the vectors of their tokens.

  Args:
    path: a `.npy` file of an array [V, D], a vector for each token.
    words: the token ids of each of U words.
    vocab_size: number of tokens V of the vocabulary.

  Returns:
    float64 [U, D].

  Raises:
    UserError: no such file, or an array of another shape.
  """
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"vectors={path!r}: expected a .npy file, there is none")
  with file.open("rb") as opened:
    table = np.load(opened, allow_pickle=False)
  if table.ndim != 2 or len(table) < vocab_size:
    raise UserError(
      f"vectors={path!r} has an array {list(table.shape)}: expected a vector for "
      f"each of {vocab_size} tokens"
    )
  return np.stack([table[ids].mean(axis=0, dtype=np.float64) for ids in words])


def cosine_similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """The cosine similarities of two sets of vectors.

  Args:
    first: [U, D].
    second: [K, D].

  Returns:
    [U, K]; 0 where one of the vectors is 0.

  Example:
    >>> words = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> cosine_similarities(words, np.array([[0.0, 2.0]])).tolist()
    [[0.8], [0.0]]
  """

  def unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)

  return unit(first) @ unit(second).T
