"""Documents of any length to rows of one length, nearly without padding."""

import bisect
import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Encoded, Vocabulary

__all__ = ["best_fit", "packed"]

# Of all places, the share without a text that needs no cutting of others.
MOST_FILLING = 0.02
# Of a text, what is worth a place of its own, with the tokens around it.
LEAST_PART = 16


def packed(
  texts: Sequence[str], vocabulary: Vocabulary, *, length: int, alone: bool = False
) -> dict[str, np.ndarray]:
  """Packs texts into rows.

  A text that is longer than a row is cut between words, and so are texts whose lengths
  would leave much of the rows empty; each part begins and ends with the tokens for
  that, and no part stands in two rows. What attends must not look from one part into
  another: `segment` tells them apart.

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
  rows = [[part] for part in parts]
  if not alone:
    fitted = best_fit([_room(part) for part in parts], length)
    rows = [[parts[number] for number in row] for row in fitted]
    _fill_up(rows, length)
  empty = dict(token=vocabulary.pad, segment=0, position=0, word=-1, characters=0)
  columns = {
    name: np.full((len(rows), length), fill, np.int32) for name, fill in empty.items()
  }
  for row, members in enumerate(rows):
    start = 0
    for segment, part in enumerate(members, start=1):
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


def _room(part: Encoded) -> int:
  """Places that a part takes in a row, with the tokens around it."""
  return len(part.ids) + 2


def _fill_up(rows: list[list[Encoded]], length: int) -> None:
  """Cuts the parts of the emptiest rows, and fills the others with them, in place.

  Args:
    rows: the parts of each.
    length: places of a row.
  """
  # The room of each row, negative, the emptiest row first.
  left = [(sum(map(_room, row)) - length, i) for i, row in enumerate(rows)]
  heapq.heapify(left)
  total = -sum(room for room, _ in left)
  while len(left) > 1 and total > MOST_FILLING * len(left) * length:
    negative, emptiest = heapq.heappop(left)
    loose, rows[emptiest] = rows[emptiest], []
    total += negative
    for part in loose:
      start = 0
      while start < len(part.ids) and -left[0][0] >= LEAST_PART:
        room, row = left[0]
        piece = next(_cut(part.part(start, len(part.ids)), -room - 2))
        rows[row].append(piece)
        start += len(piece.ids)
        total -= _room(piece)
        heapq.heapreplace(left, (room + _room(piece), row))
      if start < len(part.ids):
        rows[emptiest].append(part.part(start, len(part.ids)))
    if rows[emptiest]:
      # Nothing more fits anywhere.
      break
  rows[:] = [row for row in rows if row]


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
