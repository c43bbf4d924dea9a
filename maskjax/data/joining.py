"""Rows of several documents, read as one."""

import numpy as np

from maskjax.data.records import Record
from maskjax.errors import UserError

_COLUMNS = ("segment", "position", "word")


def join_documents(record: Record) -> Record:
  """Lets the documents of a row attend to each other, as if they were one.

  For systems whose authors cut rows out of one long stream of text, as fairseq does
  (https://github.com/facebookresearch/fairseq, `TokenBlockDataset` with the break mode
  `none` or `complete`): attention runs across documents, and positions run on.

  Args:
    record: a row of tokens, see `maskjax.data.packing.packed`: `segment`, `position`
      and `word`, int32 `[L]` each.

  Returns:
    The record with one document: `segment` is 1 but for padding, positions count from
    0 to the end of the row, and words are numbered throughout it.

  Raises:
    UserError: the record is no row of tokens.

  Example:
    >>> row = dict(segment=[1, 1, 2, 2, 0], position=[0, 1, 0, 1, 0])
    >>> row = dict(row, word=[-1, 0, 0, 1, -1])
    >>> joined = join_documents({name: np.array(v) for name, v in row.items()})
    >>> [joined[name].tolist() for name in ("segment", "position", "word")]
    [[1, 1, 1, 1, 0], [0, 1, 2, 3, 0], [-1, 0, 1, 2, -1]]
  """
  for name in _COLUMNS:
    if name not in record:
      raise UserError(f"join_documents found no {name!r}: expected rows of tokens")
  segment, word = record["segment"], record["word"]
  filled, is_word = segment > 0, word >= 0
  begins = np.ones(word.shape, bool)
  begins[1:] = (np.diff(word) != 0) | (np.diff(segment) != 0)
  joined = {
    "segment": filled,
    "position": np.where(filled, np.cumsum(filled) - 1, 0),
    "word": np.where(is_word, np.cumsum(begins & is_word) - 1, -1),
  }
  return {**record, **{name: v.astype(np.int32) for name, v in joined.items()}}
