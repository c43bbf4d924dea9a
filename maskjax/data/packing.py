"""Packing: documents of any length to rows of one length, with little padding."""

import bisect
import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Encoded, Vocabulary

__all__ = ["best_fit", "packed"]

# Share of padding below which no more texts are split to fill rows.
MAX_PADDING = 0.02
# Tokens of the smallest part that is split off a text, with its two special tokens.
MIN_PART = 16


def packed(
  texts: Sequence[str], vocabulary: Vocabulary, *, length: int, pack: bool = True
) -> dict[str, np.ndarray]:
  """Packs texts into rows.

  Texts longer than a row are split between words, and so are texts whose lengths would
  leave much padding. Each part is in one row, between the vocabulary's `first` and
  `last` tokens. `segment` numbers the parts of a row, none of which may attend to
  another, unless `maskjax.data.transforms.join_documents` makes them one.

  Args:
    texts: for example `maskjax.data.documents`.
    vocabulary: encodes them.
    length: number of tokens L of a row.
    pack: put several parts into a row. Without it each part has a row of its own, in
      order, with padding behind it.

  Returns:
    The columns of R rows, each int32 [R, L]: those of `maskjax.tokens.Text`, and
    `characters`, the number of characters of the text that each token stands for.

  Raises:
    UserError: `length` is below 3, a token between the first and the last.
  """
  if length < 3:
    raise UserError(f"length={length}: expected at least 3, for a token between two")
  encoded = vocabulary.encode(texts)
  parts = [part for whole in encoded for part in _split(whole, length - 2)]
  rows = [[part] for part in parts]
  if pack:
    fitted = best_fit([_size(part) for part in parts], length)
    rows = [[parts[number] for number in row] for row in fitted]
    _split_to_fill(rows, length)
  padding = dict(token=vocabulary.pad, segment=0, position=0, word=-1, characters=0)
  columns = {
    name: np.full((len(rows), length), value, np.int32)
    for name, value in padding.items()
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
  """Assigns pieces to rows by best-fit decreasing bin packing.

  Args:
    lengths: of the pieces, none above `row`.
    row: the length of a row.

  Returns:
    The indices of the pieces of each row.

  Example:
    >>> best_fit([3, 5, 2, 2], 6)
    [[1], [0, 2], [3]]
  """
  rows: list[list[int]] = []
  # The free length of each row, and the number of the row, ascending.
  free: list[tuple[int, int]] = []
  for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    at = bisect.bisect_left(free, (lengths[piece], 0))
    left, number = free.pop(at) if at < len(free) else (row, len(rows))
    if number == len(rows):
      rows.append([])
    rows[number].append(piece)
    bisect.insort(free, (left - lengths[piece], number))
  return rows


def _size(part: Encoded) -> int:
  """The tokens of a part in a row, with the two special tokens around it."""
  return len(part.ids) + 2


def _split_to_fill(rows: list[list[Encoded]], length: int) -> None:
  """Splits the parts of the rows with most padding to fill the others, in place.

  Args:
    rows: the parts of each row.
    length: number of tokens of a row.
  """
  # The free length of each row, negative, the emptiest row first.
  left = [(sum(map(_size, row)) - length, i) for i, row in enumerate(rows)]
  heapq.heapify(left)
  total = -sum(negative for negative, _ in left)
  while len(left) > 1 and total > MAX_PADDING * len(left) * length:
    negative, emptiest = heapq.heappop(left)
    loose, rows[emptiest] = rows[emptiest], []
    total += negative
    for part in loose:
      start = 0
      while start < len(part.ids) and -left[0][0] >= MIN_PART:
        negative, row = left[0]
        piece = next(_split(part.part(start, len(part.ids)), -negative - 2))
        rows[row].append(piece)
        start += len(piece.ids)
        total -= _size(piece)
        heapq.heapreplace(left, (negative + _size(piece), row))
      if start < len(part.ids):
        rows[emptiest].append(part.part(start, len(part.ids)))
    if rows[emptiest]:
      # Nothing more fits anywhere.
      break
  rows[:] = [row for row in rows if row]


def _split(whole: Encoded, most: int) -> Iterator[Encoded]:
  """Splits a text into parts of at most `most` tokens, between words where possible."""
  start, count = 0, len(whole.ids)
  while start < count:
    stop = min(start + most, count)
    if stop < count and whole.words[start] != whole.words[stop]:
      while whole.words[stop - 1] == whole.words[stop]:
        stop -= 1
    yield whole.part(start, stop)
    start = stop
