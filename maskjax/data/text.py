"""The source of rows of tokens: documents tokenized, packed and scored."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from maskjax import resolve
from maskjax.data import documents as document_sources
from maskjax.data import statistics
from maskjax.data.documents import Documents
from maskjax.data.packing import packed
from maskjax.data.records import Record
from maskjax.errors import UserError
from maskjax.tokens import vocabulary as vocabularies
from maskjax.tokens.vocabulary import Vocabulary

# The keywords of statistics whose values are documents.
_CORPORA = {"training", "reference"}


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TokenRows:
  """A source of rows of tokens.

  Attributes:
    columns: int32 [R, L] each, see `maskjax.data.packing.packed`; and `score`, float32
      [R, L], where there is a statistic.
    vocabulary: of the tokens.
    name: what messages call the source.
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
) -> TokenRows:
  """Rows of tokens of documents.

  Args:
    documents: name of a source of `maskjax.data.documents`, with its keywords; or the
      import path of a function that returns an iterable of strings.
    tokenizer: path of a `tokenizer.json` or of its folder; or `documents` to learn byte
      pairs from, and `size`, the number of tokens.
    length: number of tokens L of a row.
    pack: put several documents into a row, which do not attend to each other, and
      nearly no padding; without it each document has rows of its own.
    statistic: name of a function of `maskjax.data.statistics`, or an import path, and
      its keywords: adds a `score` for each token, for systems that need one. `training`
      and `reference` among its keywords are documents, as above; held-out rows should
      be scored by the training documents.

  Returns:
    A source of the columns of `maskjax.data.packing.packed` and, with a statistic,
    `score`: [L] each.

  Raises:
    UserError: no such documents, tokenizer or statistic; documents without tokens; a
      tokenizer without a token of some role; or a statistic of another shape or dtype.

  Example:
    >>> english = dict(name="python_reference", split="test")
    >>> rows = text(documents=english, tokenizer=dict(documents=english, size=512))
    >>> sorted(rows[0]), rows[0]["token"].shape
    (['characters', 'position', 'segment', 'token', 'word'], (512,))
  """
  found = read_documents(documents)
  vocabulary = read_vocabulary(tokenizer)
  columns = packed(found, vocabulary, length=length, pack=pack)
  if not len(columns["token"]):
    raise UserError(f"{found!r}: expected documents that have tokens")
  if statistic is not None:
    score = scorer(statistic, vocabulary, length=length, pack=pack)
    columns = {**columns, "score": score(columns)}
  return TokenRows(columns, vocabulary, f"text(documents={found!r})")


def scorer(
  statistic: str | Mapping[str, Any],
  vocabulary: Vocabulary,
  *,
  length: int,
  pack: bool,
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
  """The statistic that a config names, as a function from columns of rows to scores.

  Args:
    statistic: see `text`.
    vocabulary: of the rows.
    length: number of tokens of a row, also for the statistic's own documents.
    pack: see `text`.

  Returns:
    A function from columns to float32 [R, L].

  Raises:
    UserError: no such statistic or documents, or, when called, scores of another shape
      or dtype.
  """
  given: dict[str, Any]
  given = {"name": statistic} if isinstance(statistic, str) else dict(statistic)
  for key in given.keys() & _CORPORA:
    texts = read_documents(given[key])
    given[key] = packed(texts, vocabulary, length=length, pack=pack)

  def score(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    scores = resolve.build(statistics, given, rows=columns, vocabulary=vocabulary)
    shape = columns["token"].shape
    if scores.shape != shape or scores.dtype != np.float32:
      raise UserError(
        f"statistic={given['name']!r} returned {scores.dtype} {list(scores.shape)}: "
        f"expected float32 {list(shape)}"
      )
    return scores

  return score


def read_documents(spec: str | Mapping[str, Any]) -> Documents:
  """The documents that a config names, see `text`."""
  found = resolve.build(document_sources, spec)
  return found if isinstance(found, Documents) else document_sources.iterable(found)


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
