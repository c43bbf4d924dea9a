"""Sources of labeled texts, from JSON lines: one text a row, for finetuning."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskjax import storage
from maskjax.data.text import Rows, read_vocabulary
from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Encoded, Vocabulary


class _Line(NamedTuple):
  """An object of a file, and where it stands."""

  place: str
  entries: Mapping[str, Any]


def labeled_text(
  *,
  path: str,
  tokenizer: str | Mapping[str, Any],
  length: int = 512,
  text_field: str = "text",
  label_field: str = "label",
) -> Rows:
  """Texts with a class each.

  Args:
    path: a file with a JSON object on each line, local or on object storage.
    tokenizer: see `maskjax.data.text.text`.
    length: tokens of a row; of longer texts, the beginning is kept.
    text_field: the entry that is the text.
    label_field: the entry that is the class, an integer from 0 on.

  Returns:
    Rows as of `text`, with `label`, int32.

  Raises:
    UserError: the file is not such; names the line.
  """
  vocabulary = read_vocabulary(tokenizer)
  lines = list(_lines(path, {text_field: str, label_field: int}))
  for line in lines:
    if line.entries[label_field] < 0:
      raise UserError(f"{line.place}: {label_field!r}: expected at least 0")
  texts = vocabulary.encode([line.entries[text_field] for line in lines])
  columns = _rows([[part] for part in texts], vocabulary, length)
  labels = np.array([line.entries[label_field] for line in lines], np.int32)
  return Rows({**columns, "label": labels}, vocabulary, f"labeled_text({path!r})")


def tagged_text(
  *,
  path: str,
  tokenizer: str | Mapping[str, Any],
  length: int = 512,
  words_field: str = "words",
  tags_field: str = "tags",
) -> Rows:
  """Texts whose words have a class each, such as parts of speech or names.

  Args:
    path: a file with a JSON object on each line, local or on object storage.
    tokenizer: see `maskjax.data.text.text`.
    length: tokens of a row; of longer texts, the beginning is kept.
    words_field: the entry that is a list of words.
    tags_field: the entry that is a list of their classes, integers from 0 on.

  Returns:
    Rows as of `text`, with `tag`, int32 [L]: of each word's first token its class, and
    -1 of all others, as BERT does (https://arxiv.org/abs/1810.04805, section 5.3).

  Raises:
    UserError: the file is not such; names the line.
  """
  vocabulary = read_vocabulary(tokenizer)
  parts, tags = [], []
  for line in _lines(path, {words_field: list, tags_field: list}):
    words, classes = line.entries[words_field], line.entries[tags_field]
    if len(words) != len(classes) or not words:
      raise UserError(
        f"{line.place}: {len(words)} words and {len(classes)} tags: expected as many, "
        "and at least one"
      )
    if not all(type(tag) is int and tag >= 0 for tag in classes):
      raise UserError(f"{line.place}: {tags_field!r}: expected integers from 0 on")
    # Words after the first follow a space, as in a text.
    spaced = [words[0], *(f" {word}" for word in words[1:])]
    encoded = vocabulary.encode(spaced)
    parts.append([_joined(encoded)])
    firsts = [
      [tag] + [-1] * (len(e.ids) - 1) for tag, e in zip(classes, encoded, strict=True)
    ]
    tags.append([tag for of_word in firsts for tag in of_word])
  columns = _rows(parts, vocabulary, length)
  column = np.full(columns["token"].shape, -1, np.int32)
  for row, found in enumerate(tags):
    kept = found[: length - 2]
    column[row, 1 : 1 + len(kept)] = kept
  return Rows({**columns, "tag": column}, vocabulary, f"tagged_text({path!r})")


def questions(
  *,
  path: str,
  tokenizer: str | Mapping[str, Any],
  length: int = 384,
  stride: int = 128,
) -> Rows:
  """Questions on a context, whose answers are spans of it, in the manner of SQuAD.

  A context that is too long for a row is cut into windows that overlap, each with the
  question before it; where a window does not hold the answer, it has none.

  Args:
    path: a file with a JSON object on each line, local or on object storage: `question`
      and `context`, and `answer` and `start`, the character of the context where it
      begins; an `answer` of null for none.
    tokenizer: see `maskjax.data.text.text`.
    length: tokens of a row.
    stride: tokens of the context that two neighboring windows share.

  Returns:
    Rows as of `text`, with `kind`, int32 [L], 1 in the context; `start` and `end`,
    int32, places of the answer's first and last token, 0 where there is none; and
    `question`, int32, the number of the line.

  Raises:
    UserError: the file is not such, or a question leaves no place for its context;
      names the line.
  """
  vocabulary = read_vocabulary(tokenizer)
  parts, places = [], []
  lines = list(_lines(path, {"question": str, "context": str}))
  asked = vocabulary.encode([line.entries["question"] for line in lines])
  told = vocabulary.encode([line.entries["context"] for line in lines])
  for number, (line, question, context) in enumerate(
    zip(lines, asked, told, strict=True)
  ):
    room = length - len(question.ids) - 3
    if room <= stride:
      raise UserError(
        f"{line.place}: a question of {len(question.ids)} tokens leaves {room} for its "
        f"context: expected more than stride={stride}"
      )
    first, last = _answer(line, context)
    for begin in range(0, max(len(context.ids) - stride, 1), room - stride):
      window = context.part(begin, begin + room)
      held = begin <= first and last < begin + room and first >= 0
      shift = len(question.ids) + 2 - begin
      parts.append([question, window])
      places.append((first + shift, last + shift, number) if held else (0, 0, number))
  columns = _rows(parts, vocabulary, length)
  labels = np.array(places, np.int32).reshape(-1, 3).T
  more = dict(zip(("start", "end", "question"), labels, strict=True))
  return Rows({**columns, **more}, vocabulary, f"questions({path!r})")


def _answer(line: _Line, context: Encoded) -> tuple[int, int]:
  """The first and the last token of a line's answer; -1 and -1 for none."""
  answer, start = line.entries.get("answer"), line.entries.get("start")
  if answer is None:
    return -1, -1
  text = line.entries["context"]
  if (
    type(start) is not int or text[start : start + len(answer)] != answer or not answer
  ):
    raise UserError(
      f"{line.place}: expected the answer {answer!r} in the context, from its "
      f"character start={start} on"
    )
  # Tokens of which the answer has some characters.
  begins, ends = context.starts, context.starts + context.characters
  held = np.flatnonzero((ends > start) & (begins < start + len(answer)))
  if not len(held):
    raise UserError(f"{line.place}: the answer {answer!r} has no tokens")
  return int(held[0]), int(held[-1])


def _rows(
  parts: Sequence[Sequence[Encoded]], vocabulary: Vocabulary, length: int
) -> dict[str, np.ndarray]:
  """Rows of one document each, of one part or two; the ends of long ones are cut."""
  if length < 3:
    raise UserError(f"length={length}: expected at least 3, for a token between two")
  shape = len(parts), length
  columns = {
    name: np.full(shape, fill, np.int32)
    for name, fill in dict(
      token=vocabulary.pad, segment=0, position=0, word=-1, characters=0, kind=0
    ).items()
  }
  for row, members in enumerate(parts):
    at = 1
    columns["token"][row, 0] = vocabulary.first
    for kind, part in enumerate(members):
      kept = part.part(0, length - at - 1)
      inside = slice(at, at + len(kept.ids))
      columns["token"][row, inside] = kept.ids
      columns["word"][row, inside] = kept.words
      columns["characters"][row, inside] = kept.characters
      at = inside.stop + 1
      columns["token"][row, at - 1] = vocabulary.last
      columns["kind"][row, inside.start : at] = kind
    columns["segment"][row, :at] = 1
    columns["position"][row, :at] = np.arange(at)
  if all(len(members) == 1 for members in parts):
    del columns["kind"]
  return columns


def _joined(parts: Sequence[Encoded]) -> Encoded:
  """Words one after the other, as one text."""
  numbers = [np.full(len(part.ids), i, np.int32) for i, part in enumerate(parts)]
  return Encoded(
    ids=np.concatenate([part.ids for part in parts]),
    words=np.concatenate(numbers),
    characters=np.concatenate([part.characters for part in parts]),
    starts=np.concatenate([part.starts for part in parts]),
  )


def _lines(path: str, expected: Mapping[str, type]) -> Iterator[_Line]:
  """The objects of a file, which have these entries."""
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"{path}: expected a file of JSON lines, there is none")
  found = 0
  for number, line in enumerate(file.read_bytes().splitlines(), start=1):
    place = f"{path}:{number}"
    try:
      entries = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
      raise UserError(f"{place}: expected an object in JSON, but {error}") from error
    for key, kind in expected.items():
      value = entries.get(key) if isinstance(entries, dict) else None
      if type(value) is not kind or value in ("", []):
        raise UserError(f"{place}: expected {key!r}, {kind.__name__}")
    found += 1
    yield _Line(place, entries)
  if not found:
    raise UserError(f"{path}: expected JSON lines, it is empty")
