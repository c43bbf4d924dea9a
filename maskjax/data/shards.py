"""Rows of tokens on disk: packed once, read by many runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskjax import storage
from maskjax.data.documents import Documents
from maskjax.data.packing import packed
from maskjax.data.text import TokenRows, read_documents, read_vocabulary, scorer
from maskjax.errors import UserError, did_you_mean
from maskjax.tokens import vocabulary as vocabularies

TOKENIZER = "tokenizer.json"
INDEX = "index.json"
SCORE = "score"
# Texts of one shard, which are packed together: more would save no more padding.
SHARD = 10_000


def write(
  folder: str | Path,
  *,
  documents: str | Mapping[str, Any],
  tokenizer: str | Mapping[str, Any],
  length: int = 512,
  pack: bool = True,
  statistic: str | Mapping[str, Any] | None = None,
  split: str = "train",
) -> int:
  """Packs documents into rows, and writes them to a folder, shard by shard.

  Args:
    folder: local or on object storage; may hold other splits, of the same vocabulary.
    documents: see `maskjax.data.text.text`.
    tokenizer: see there.
    length: number of tokens of a row.
    pack: see there.
    statistic: see there; computed again for each shard, so that for many shards
      `training` should be a sample.
    split: the name of the split.

  Returns:
    The number of rows.

  Raises:
    UserError: the folder has this split already, or rows of another vocabulary; and the
      errors of `maskjax.data.text.text`.
  """
  root = storage.path(folder)
  vocabulary = read_vocabulary(tokenizer)
  if (root / split / INDEX).is_file():
    raise UserError(f"{folder} has the split {split!r}: expected a new one")
  if (root / TOKENIZER).is_file() and vocabularies.load(str(root)) != vocabulary:
    raise UserError(f"{folder} has rows of another vocabulary: expected the same")
  texts = read_documents(documents)
  score = statistic and scorer(statistic, vocabulary, length=length, pack=pack)
  (root / split).mkdir(parents=True, exist_ok=True)
  vocabulary.save(root / TOKENIZER)
  counts = []
  for number, part in enumerate(_parts(texts)):
    columns = packed(part, vocabulary, length=length, pack=pack)
    if score:
      # The bits of the floats, so that all columns have one dtype.
      columns = {**columns, SCORE: score(columns).view(np.int32)}
    stacked = np.stack([columns[name] for name in sorted(columns)], axis=1)
    with (root / split / f"{number:05}.npy").open("wb") as file:
      np.save(file, stacked.astype(np.int32))
    counts.append(len(stacked))
  index = {"length": length, "columns": sorted(columns), "rows": counts}
  # Last, so that a split with an index is complete.
  (root / split / INDEX).write_text(json.dumps(index))
  return sum(counts)


def packed_rows(*, root: str, split: str = "train") -> TokenRows:
  """Rows that `write`, or `maskjax pack`, wrote to a folder.

  They are memory-mapped. Those on object storage are copied to this host once, see
  `maskjax.storage.local_copy`.

  Args:
    root: the folder, local or on object storage.
    split: which of its splits.

  Raises:
    UserError: no such folder or split, or a shard is missing or damaged.
  """
  folder = storage.reach(root)
  if not (folder / TOKENIZER).is_file():
    raise UserError(
      f"{root}: expected rows that `maskjax pack` wrote, with {TOKENIZER}"
    )
  splits = [part.name for part in folder.iterdir() if (part / INDEX).is_file()]
  if split not in splits:
    raise UserError(f"{root} has no split {split!r}: {did_you_mean(split, splits)}")
  index = json.loads((folder / split / INDEX).read_text())
  names = [f"{split}/{number:05}.npy" for number in range(len(index["rows"]))]
  local = storage.local_copy(root, names) if storage.is_remote(root) else Path(root)
  shards = []
  for name, count in zip(names, index["rows"], strict=True):
    try:
      shard = np.load(local / name, mmap_mode="r")
    except (OSError, ValueError) as error:
      raise UserError(f"cannot read {root}/{name}: {error}") from error
    expected = (count, len(index["columns"]), index["length"])
    if shard.shape != expected:
      raise UserError(f"{root}/{name} has {shard.shape}: expected {expected}")
    shards.append(shard)
  types = {SCORE: np.float32}
  columns = {
    name: Joined([shard[:, at].view(types.get(name, np.int32)) for shard in shards])
    for at, name in enumerate(index["columns"])
  }
  vocabulary = vocabularies.load(str(folder))
  return TokenRows(columns, vocabulary, f"packed_rows(root={root!r}, split={split!r})")


class Joined(Sequence[np.ndarray]):
  """Arrays as one sequence of their rows, without copying them."""

  def __init__(self, parts: Sequence[np.ndarray]):
    self._parts = parts
    self._ends = np.cumsum([len(part) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: Any) -> Any:
    number = int(np.searchsorted(self._ends, index, side="right"))
    before = int(self._ends[number - 1]) if number else 0
    return np.array(self._parts[number][index - before])


def _parts(texts: Documents) -> Iterator[Sequence[str]]:
  for start in range(0, len(texts), SHARD):
    yield texts[start : start + SHARD]
