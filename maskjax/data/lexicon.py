"""The words in rows of tokens, and a numbering of the different ones."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import final

import numpy as np

from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Vocabulary

# Of R rows of L tokens, see `maskjax.data.packing.packed`.
Columns = Mapping[str, np.ndarray]


def number_documents(columns: Columns) -> np.ndarray:
  """The number of each token's document, different in every row: int [R, L]."""
  segment = columns["segment"]
  return np.arange(len(segment))[:, None] * (segment.max() + 1) + segment


@final
@dataclasses.dataclass(frozen=True)
class Words:
  """The W words of rows, in their order.

  Attributes:
    ids: int [W], the number of each word in a `Lexicon`.
    starts: int [W], the index of each word's first token in the flattened rows.
    of_token: int [R, L], the index from 0 to W - 1 of each token's word; -1 outside
      words.
  """

  ids: np.ndarray
  starts: np.ndarray
  of_token: np.ndarray

  def to_tokens(self, values: np.ndarray) -> np.ndarray:
    """Spreads values of the words, [W], over their tokens: float32 [R, L]."""
    padded = np.append(values, 0).astype(np.float32)
    return padded[self.of_token]

  def lookup(self, values: np.ndarray) -> np.ndarray:
    """Looks up values of a lexicon's words, [U], for all tokens: float32 [R, L]."""
    return self.to_tokens(values[self.ids])

  def document_starts(self, documents: np.ndarray) -> np.ndarray:
    """Where documents begin among the words, except the first: int [D - 1].

    Args:
      documents: int [R, L], see `number_documents`.
    """
    of_word = documents.reshape(-1)[self.starts]
    return np.flatnonzero(np.diff(of_word)) + 1

  def number_terms(
    self, terms: set[tuple[int, ...]], documents: np.ndarray
  ) -> np.ndarray:
    """Numbers the terms in each row, from 1; longer terms take precedence.

    Args:
      terms: each the numbers of its words in the lexicon.
      documents: int [R, L], see `number_documents`; no term crosses their borders.

    Returns:
      float32 [R, L], 0 outside terms.
    """
    length = self.of_token.shape[1]
    of_word = documents.reshape(-1)[self.starts].tolist()
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
    return self.to_tokens(numbers)


@final
class Lexicon:
  """The U different words of one corpus or several, numbered in order of occurrence.

  Attributes:
    words: the words, without surrounding space.
    tokens: the token ids of each word at its first occurrence.
  """

  def __init__(self, vocabulary: Vocabulary, *, keep_case: bool = False) -> None:
    self.words: list[str] = []
    self.tokens: list[np.ndarray] = []
    self._vocabulary = vocabulary
    self._keep_case = keep_case
    self._by_word: dict[str, int] = {}
    self._by_tokens: dict[bytes, int] = {}

  def read(self, columns: Columns) -> Words:
    """Finds the words in rows, and adds those that are new."""
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

  def words_in(self, text: str) -> list[int]:
    """The numbers of the words in a text; adds those that are new."""
    (found,) = self._vocabulary.encode([f" {text.strip()}"])
    ends = np.flatnonzero(np.diff(found.words)) + 1
    return [self._number(ids) for ids in np.split(found.ids, ends) if len(ids)]

  def top_words(
    self, scores: np.ndarray, count: int, *, ignored: Collection[str]
  ) -> np.ndarray:
    """The words with the highest scores, in descending order.

    Args:
      scores: [U]; only words with a score above 0 count.
      count: the greatest number of words to return.
      ignored: words to leave out, in lower case. Words with fewer than two letters are
        left out as well.

    Returns:
      int [K], numbers of words.

    Raises:
      UserError: no word has a score above 0.
    """
    fits = np.array([_has_letters(w) and w.lower() not in ignored for w in self.words])
    order = np.argsort(-scores, kind="stable")
    best = order[(fits & (scores > 0))[order]][:count]
    if not len(best):
      raise UserError(
        "training: expected words that not all documents of the reference have"
      )
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


def _has_letters(word: str) -> bool:
  return sum(character.isalpha() for character in word) > 1
