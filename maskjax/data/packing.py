"""Documents of any length to rows of one length, nearly without filling."""

import bisect
from collections.abc import Iterator, Sequence

import numpy as np

from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Encoded, Vocabulary

__all__ = ["best_fit", "packed"]


def packed(
  texts: Sequence[str], vocabulary: Vocabulary, *, length: int, alone: bool = False
) -> dict[str, np.ndarray]:
  """Packs texts into rows.

  A text that is longer than a row is cut between words; each part begins and ends with
  the tokens for that, and no part stands in two rows. What attends must not look from
  one part into another: `segment` tells them apart.

  Args:
    texts: for example `maskjax.data.documents`.
    vocabulary: turns them into ids.
    length: tokens of a row, L.
    alone: put each part into a row of its own, in order, and fill it up.

  Returns:
    The columns of R rows, each int32 [R, L]: those of `maskjax.tokens.Text`, and
    `characters`, how many of the text each token stands for.

  Raises:
    UserError: a row has no place for a token between the first and the last.
  """
  if length < 3:
    raise UserError(f"length={length}: expected at least 3, for a token between two")
  encoded = vocabulary.encode(texts)
  parts = [part for whole in encoded for part in _cut(whole, length - 2)]
  rows = [[number] for number in range(len(parts))]
  if not alone:
    rows = best_fit([len(part.ids) + 2 for part in parts], length)
  empty = dict(token=vocabulary.pad, segment=0, position=0, word=-1, characters=0)
  columns = {
    name: np.full((len(rows), length), fill, np.int32) for name, fill in empty.items()
  }
  for row, members in enumerate(rows):
    start = 0
    for segment, member in enumerate(members, start=1):
      part = parts[member]
      stop = start + len(part.ids) + 2
      whole, inside = slice(start, stop), slice(start + 1, stop - 1)
      columns["token"][row, whole] = [vocabulary.first, *part.ids, vocabulary.last]
      columns["segment"][row, whole] = segment
      columns["position"][row, whole] = np.arange(stop - start)
      columns["word"][row, inside] = part.words
      columns["characters"][row, inside] = part.characters
      start = stop
  return columns


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


def _cut(whole: Encoded, most: int) -> Iterator[Encoded]:
  """Parts of a text, cut between words where no word alone is too long."""
  start, count = 0, len(whole.ids)
  while start < count:
    stop = min(start + most, count)
    if stop < count and whole.words[start] != whole.words[stop]:
      while whole.words[stop - 1] == whole.words[stop]:
        stop -= 1
    yield whole.part(start, stop)
    start = stop
