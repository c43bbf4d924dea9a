"""Documents of any length to rows of one length, nearly without filling."""

import bisect
from collections.abc import Iterator, Sequence

import numpy as np

from maskjax.data.memory import Arrays, arrays
from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Vocabulary

__all__ = ["best_fit", "packed"]


def packed(texts: Sequence[str], vocabulary: Vocabulary, *, length: int) -> Arrays:
  """Packs texts into rows.

  A text that is longer than a row is cut between words; each part begins and ends with
  the tokens for that, and no part stands in two rows. What attends must not look from
  one part into another: `segment` tells them apart.

  Args:
    texts: for example `maskjax.data.documents`.
    vocabulary: turns them into ids.
    length: tokens of a row, L.

  Returns:
    A source of rows, each int32 [L]: `token`, ids; `segment`, which part of the row it
    belongs to, from 1, and 0 for filling; `position`, its place in the part; `word`,
    the number of its word in the part, and -1 for what is no word.

  Raises:
    UserError: a row has no place for a token between the first and the last.
  """
  if length < 3:
    raise UserError(f"length={length}: expected at least 3, for a token between two")
  parts = [
    part
    for ids, words in vocabulary.encode(texts)
    for part in _cut(ids, words, length - 2)
  ]
  rows = best_fit([len(ids) + 2 for ids, _ in parts], length)
  columns = {
    name: np.full((len(rows), length), fill, np.int32)
    for name, fill in (
      ("token", vocabulary.pad),
      ("segment", 0),
      ("position", 0),
      ("word", -1),
    )
  }
  for row, members in enumerate(rows):
    start = 0
    for segment, member in enumerate(members, start=1):
      ids, words = parts[member]
      stop = start + len(ids) + 2
      columns["token"][row, start:stop] = [vocabulary.first, *ids, vocabulary.last]
      columns["segment"][row, start:stop] = segment
      columns["position"][row, start:stop] = np.arange(len(ids) + 2)
      columns["word"][row, start + 1 : stop - 1] = words - words[0]
      start = stop
  return arrays(**columns)


def best_fit(lengths: Sequence[int], row: int) -> list[list[int]]:
  """Puts pieces into rows: the longest first, each where it leaves the least room.

  Args:
    lengths: of the pieces, none above `row`.
    row: the room of an empty row.

  Returns:
    The numbers of the pieces of each row.

  Example:
    >>> best_fit([3, 5, 2, 2], 6)
    [[1], [0, 2], [3]]
  """
  rows: list[list[int]] = []
  room: list[tuple[int, int]] = []  # what is left, and of which row; ascending
  for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    at = bisect.bisect_left(room, (lengths[piece], 0))
    left, number = room.pop(at) if at < len(room) else (row, len(rows))
    if number == len(rows):
      rows.append([])
    rows[number].append(piece)
    bisect.insort(room, (left - lengths[piece], number))
  return rows


def _cut(
  ids: np.ndarray, words: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Parts of a text, cut between words where no word alone is too long."""
  start = 0
  while start < len(ids):
    stop = min(start + most, len(ids))
    if stop < len(ids) and words[start] != words[stop]:
      while words[stop - 1] == words[stop]:
        stop -= 1
    yield ids[start:stop], words[start:stop]
    start = stop
