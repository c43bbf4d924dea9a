"""Vectors of words, whose cosines say how like two words are."""

import numpy as np

from maskjax import storage
from maskjax.errors import UserError


def from_contexts(
  ids: np.ndarray,
  parts: np.ndarray,
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
    ids: int [W], the words of a corpus, one after the other, from 0 to U - 1.
    parts: int [W], which document each is of.
    size: U, how many different words there are.
    window: how many words apart two words of a document occur together.
    contexts: how many of the most frequent words are looked for around others.
    width: D, numbers of a vector; fewer where there are fewer contexts.

  Returns:
    float64 [U, D]; 0 for words that have none of the contexts.
  """
  frequent = np.argsort(-np.bincount(ids, minlength=size), kind="stable")[:contexts]
  column = np.full(size, -1)
  column[frequent] = np.arange(len(frequent))
  together = np.zeros(size * len(frequent))
  for apart in range(1, min(window, len(ids) - 1) + 1):
    same = parts[:-apart] == parts[apart:]
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


def of_tokens(path: str, words: list[np.ndarray], vocab_size: int) -> np.ndarray:
  """Vectors of words: the means of their tokens'.

  Args:
    path: a `.npy` file of an array [V, D], a vector for each token.
    words: the tokens of each of U words.
    vocab_size: the number of tokens that there may be.

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


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Of each vector with each other: [U, D] and [K, D] to [U, K]; 0 where one is 0.

  Example:
    >>> cosines(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 2.0]])).tolist()
    [[0.8], [0.0]]
  """

  def unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)

  return unit(first) @ unit(second).T
