"""The source of rows of tokens."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from maskjax import resolve
from maskjax.data import documents as rooms
from maskjax.data import statistics
from maskjax.data.documents import Documents
from maskjax.data.packing import packed
from maskjax.data.records import Record
from maskjax.errors import UserError
from maskjax.tokens import vocabulary as vocabularies
from maskjax.tokens.vocabulary import Vocabulary

# The keywords of statistics that are documents.
_CORPORA = {"training", "reference"}


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rows:
  """A source of rows of tokens.

  Attributes:
    columns: of R rows int32 [L] each, see `maskjax.data.packing.packed`; and `score`,
      float32 [L], where there is a statistic.
    vocabulary: of the tokens.
    name: what a message calls it.
  """

  columns: Mapping[str, Any]
  vocabulary: Vocabulary
  name: str

  def __len__(self) -> int:
    return len(self.columns["token"])

  def __getitem__(self, index: int) -> Record:
    return {name: column[index] for name, column in self.columns.items()}

  def __repr__(self) -> str:
    return self.name


def text(
  *,
  documents: str | Mapping[str, Any],
  tokenizer: str | Mapping[str, Any],
  length: int = 512,
  pack: bool = True,
  statistic: str | Mapping[str, Any] | None = None,
) -> Rows:
  """Rows of tokens of documents, nearly without padding.

  Args:
    documents: name of a source of `maskjax.data.documents`, with its keywords; or the
      import path of a function that gives texts, any iterable of strings.
    tokenizer: path of a `tokenizer.json` or of its folder; or `documents` to learn byte
      pairs from, and `size`, the number of tokens.
    length: tokens of a row.
    pack: put several documents into a row, which do not attend to each other; without
      it each has rows of its own.
    statistic: name of a function of `maskjax.data.statistics`, or an import path, and
      its keywords: gives each token a `score`, for systems that ask for one. `training`
      and `reference` among its keywords are documents, as above; held-out rows should
      be scored by those that are trained on.

  Raises:
    UserError: no such documents, tokenizer or statistic, or one that has not what rows
      need.

  Example:
    >>> english = dict(name="python_reference", split="test")
    >>> rows = text(documents=english, tokenizer=dict(documents=english, size=512))
    >>> sorted(rows[0]), rows[0]["token"].shape
    (['characters', 'position', 'segment', 'token', 'word'], (512,))
  """
  found = read_documents(documents)
  vocabulary = read_vocabulary(tokenizer)
  columns = packed(found, vocabulary, length=length, alone=not pack)
  if not len(columns["token"]):
    raise UserError(f"{found!r}: expected documents that have tokens")
  if statistic is not None:
    score = scorer(statistic, vocabulary, length=length, pack=pack)
    columns = {**columns, "score": score(columns)}
  return Rows(columns, vocabulary, f"text(documents={found!r})")


def scorer(
  statistic: str | Mapping[str, Any],
  vocabulary: Vocabulary,
  *,
  length: int,
  pack: bool,
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
  """The function from columns of rows to scores that a config names, see `text`."""
  given: dict[str, Any]
  given = {"name": statistic} if isinstance(statistic, str) else dict(statistic)
  for key in given.keys() & _CORPORA:
    texts = read_documents(given[key])
    given[key] = packed(texts, vocabulary, length=length, alone=not pack)

  def score(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    scores = resolve.build(statistics, given, rows=columns, vocabulary=vocabulary)
    shape = columns["token"].shape
    if scores.shape != shape or scores.dtype != np.float32:
      raise UserError(
        f"statistic={given['name']!r} gave {scores.dtype} {list(scores.shape)}: "
        f"expected float32 {list(shape)}"
      )
    return scores

  return score


def read_documents(spec: str | Mapping[str, Any]) -> Documents:
  """The documents that a config names, see `text`."""
  found = resolve.build(rooms, spec)
  return found if isinstance(found, Documents) else rooms.iterable(found)


def read_vocabulary(spec: str | Mapping[str, Any]) -> Vocabulary:
  """The vocabulary that a config names, see `text`."""
  if isinstance(spec, str):
    return vocabularies.load(spec)
  spec = dict(spec)
  if "documents" not in spec:
    raise UserError(
      "tokenizer: expected the path of a tokenizer.json, or documents to learn from"
    )
  texts = read_documents(spec.pop("documents"))
  unknown = [key for key in spec if key != "size"]
  if unknown:
    raise UserError(f"tokenizer takes no {unknown[0]!r}: expected documents and size")
  return vocabularies.train_bpe(texts, **spec)
