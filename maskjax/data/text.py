"""The source of rows of tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from maskjax import resolve
from maskjax.data import documents as rooms
from maskjax.data.documents import Documents
from maskjax.data.packing import packed
from maskjax.data.records import Record
from maskjax.errors import UserError
from maskjax.tokens import vocabulary as vocabularies
from maskjax.tokens.vocabulary import Vocabulary


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rows:
  """A source of rows of tokens.

  Attributes:
    columns: int32 [R, L] each, see `maskjax.data.packing.packed`.
    vocabulary: of the tokens.
    name: what a message calls it.
  """

  columns: Mapping[str, np.ndarray]
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
) -> Rows:
  """Rows of tokens of documents, nearly without filling.

  Args:
    documents: name of a source of `maskjax.data.documents`, with its keywords; or the
      import path of a function that gives texts, any iterable of strings.
    tokenizer: path of a `tokenizer.json` or of its folder; or `documents` to learn byte
      pairs from, and `size`, the number of tokens.
    length: tokens of a row.
    pack: put several documents into a row, which do not attend to each other; without
      it each has rows of its own.

  Raises:
    UserError: no such documents or tokenizer, or one that has not what rows need.

  Example:
    >>> topics = dict(name="python_topics", split="test")
    >>> rows = text(documents=topics, tokenizer=dict(documents=topics, size=512))
    >>> rows[0]["token"].shape, rows.vocabulary.decode(rows[0]["token"]).split()[:3]
    ((512,), ['The', '"assert"', 'statement'])
  """
  found = read_documents(documents)
  vocabulary = read_vocabulary(tokenizer)
  columns = packed(found, vocabulary, length=length, alone=not pack)
  if not len(columns["token"]):
    raise UserError(f"{found!r}: expected documents that have tokens")
  return Rows(columns, vocabulary, f"text(documents={found!r})")


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
