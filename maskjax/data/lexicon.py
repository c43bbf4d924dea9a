"""The words of rows of tokens, and their numbers."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import final

import numpy as np

from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Vocabulary

# Of rows, see `maskjax.data.packing.packed`.
Columns = Mapping[str, np.ndarray]


def documents(columns: Columns) -> np.ndarray:
  """Numbers the documents of all rows: int [R, L]."""
  segment = columns["segment"]
  return np.arange(len(segment))[:, None] * (segment.max() + 1) + segment


@final
@dataclasses.dataclass(frozen=True)
class Words:
  """The words of rows, one after the other.

  Attributes:
    ids: int [W], which word of a `Lexicon` each is.
    starts: int [W], where each begins in the rows, flattened.
    of_token: int [R, L], which of the W words a token is of; -1 for none.
  """

  ids: np.ndarray
  starts: np.ndarray
  of_token: np.ndarray

  def each(self, values: np.ndarray) -> np.ndarray:
    """Values of the W words, for each of their tokens: float32 [R, L]."""
    padded = np.append(values, 0).astype(np.float32)
    return padded[self.of_token]

  def spread(self, values: np.ndarray) -> np.ndarray:
    """Values of a lexicon's words, for each of their tokens: float32 [R, L]."""
    return self.each(values[self.ids])

  def borders(self, parts: np.ndarray) -> np.ndarray:
    """The first word of each document but the first one."""
    of_word = parts.reshape(-1)[self.starts]
    return np.flatnonzero(np.diff(of_word)) + 1

  def numbered(self, terms: set[tuple[int, ...]], parts: np.ndarray) -> np.ndarray:
    """Numbers the terms in each row: float32 [R, L]."""
    length = self.of_token.shape[1]
    of_word = parts.reshape(-1)[self.starts].tolist()
    in_row = (self.starts // length).tolist()
    longest = max((len(term) for term in terms), default=0)
    ids, numbers = self.ids.tolist(), np.zeros(len(self.ids))
    at, row, number = 0, -1, 0
    while at < len(ids):
      if in_row[at] != row:
        row, number = in_row[at], 0
      for size in range(longest, 0, -1):
        whole = of_word[at : at + size]
        if tuple(ids[at : at + size]) in terms and len(set(whole)) == 1:
          number += 1
          numbers[at : at + size] = number
          at += size - 1
          break
      at += 1
    return self.each(numbers)


@final
class Lexicon:
  """The different words of several corpora, numbered from 0 on in the order found.

  Attributes:
    words: the words, without space around them.
    tokens: the ids of each, as it was first found.
  """

  def __init__(self, vocabulary: Vocabulary, *, keep_case: bool = False) -> None:
    self.words: list[str] = []
    self.tokens: list[np.ndarray] = []
    self._vocabulary = vocabulary
    self._keep_case = keep_case
    self._by_word: dict[str, int] = {}
    self._by_tokens: dict[bytes, int] = {}

  def read(self, columns: Columns) -> Words:
    """Finds the words of rows."""
    token, segment, word = (columns[name] for name in ("token", "segment", "word"))
    changed = np.ones(token.shape, bool)
    changed[:, 1:] = (np.diff(word, axis=1) != 0) | (np.diff(segment, axis=1) != 0)
    begins = (changed & (word >= 0)).reshape(-1)
    starts = np.flatnonzero(begins)
    of_token = np.where(word >= 0, begins.cumsum().reshape(word.shape) - 1, -1)
    sizes = np.bincount(of_token[of_token >= 0], minlength=len(starts))
    flat = np.ascontiguousarray(token.reshape(-1), np.int32)
    spans = zip(starts.tolist(), (starts + sizes).tolist(), strict=True)
    ids = [self._number(flat[start:stop]) for start, stop in spans]
    return Words(np.array(ids, int), starts, of_token)

  def spell(self, text: str) -> list[int]:
    """The words of a text."""
    (found,) = self._vocabulary.encode([f" {text.strip()}"])
    ends = np.flatnonzero(np.diff(found.words)) + 1
    return [self._number(ids) for ids in np.split(found.ids, ends) if len(ids)]

  def first(
    self, scores: np.ndarray, count: int, *, ignored: Collection[str]
  ) -> np.ndarray:
    """The words with the highest scores above 0, the best first: int [K].

    Args:
      scores: [U], of all words.
      count: K, how many; fewer where there are no more.
      ignored: words that are passed over, in lower case, as are those without two
        letters.

    Raises:
      UserError: there is none.
    """
    fits = np.array([_lettered(w) and w.lower() not in ignored for w in self.words])
    order = np.argsort(-scores, kind="stable")
    best = order[(fits & (scores > 0))[order]][:count]
    if not len(best):
      raise UserError("training: expected words that not all of the reference has")
    return best

  def _number(self, ids: np.ndarray) -> int:
    key = ids.tobytes()
    if key not in self._by_tokens:
      word = self._vocabulary.decode(ids).strip()
      word = word if self._keep_case else word.lower()
      if word not in self._by_word:
        self._by_word[word] = len(self.words)
        self.words.append(word)
        self.tokens.append(ids)
      self._by_tokens[key] = self._by_word[word]
    return self._by_tokens[key]


def _lettered(word: str) -> bool:
  return sum(character.isalpha() for character in word) > 1
