"""Sources of labeled texts for finetuning: JSON lines to rows, one text per row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskjax import storage
from maskjax.data.text import TokenRows, read_vocabulary, scorer
from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Encoded, Vocabulary


class _Line(NamedTuple):
  """An object of a file, and its location for error messages."""

  location: str
  entries: Mapping[str, Any]


def labeled_text(
  *,
  path: str,
  tokenizer: str | Mapping[str, Any],
  length: int = 512,
  text_field: str = "text",
  label_field: str = "label",
  statistic: str | Mapping[str, Any] | None = None,
) -> TokenRows:
  """Texts with one class each.

  Args:
    path: a file with a JSON object on each line, local or on object storage.
    tokenizer: see `maskjax.data.text.text`.
    length: number of tokens of a row; longer texts are truncated.
    text_field: the key of the text.
    label_field: the key of the class, an integer from 0.
    statistic: see `maskjax.data.text.text`.

  Returns:
    Rows like those of `text`, with `label`, int32.

  Raises:
    UserError: no such file, or a line without such a text and class.
  """
  vocabulary = read_vocabulary(tokenizer)
  lines = list(_lines(path, {text_field: str, label_field: int}))
  for line in lines:
    if line.entries[label_field] < 0:
      raise UserError(f"{line.location}: {label_field!r}: expected at least 0")
  texts = vocabulary.encode([line.entries[text_field] for line in lines])
  columns = _rows([[part] for part in texts], vocabulary, length)
  labels = np.array([line.entries[label_field] for line in lines], np.int32)
  columns = {**columns, "label": labels}
  if statistic is not None:
    score = scorer(statistic, vocabulary, length=length, pack=False)
    columns = {**columns, "score": score(columns)}
  return TokenRows(columns, vocabulary, f"labeled_text({path!r})")


def tagged_text(
  *,
  path: str,
  tokenizer: str | Mapping[str, Any],
  length: int = 512,
  words_field: str = "words",
  tags_field: str = "tags",
) -> TokenRows:
  """Texts with one class per word, such as its part of speech or kind of name.

  Args:
    path: a file with a JSON object on each line, local or on object storage.
    tokenizer: see `maskjax.data.text.text`.
    length: number of tokens of a row; longer texts are truncated.
    words_field: the key of a list of words.
    tags_field: the key of a list of their classes, integers from 0.

  Returns:
    Rows like those of `text`, with `tag`, int32 [L]: the class of each word at its
    first token, -1 elsewhere, as in BERT (https://arxiv.org/abs/1810.04805, section
    5.3).

  Raises:
    UserError: no such file, or a line without as many classes as words.
  """
  vocabulary = read_vocabulary(tokenizer)
  parts, tags = [], []
  for line in _lines(path, {words_field: list, tags_field: list}):
    words, classes = line.entries[words_field], line.entries[tags_field]
    if len(words) != len(classes) or not words:
      raise UserError(
        f"{line.location}: {len(words)} words and {len(classes)} tags: expected as "
        "many, and at least one"
      )
    if not all(type(tag) is int and tag >= 0 for tag in classes):
      raise UserError(f"{line.location}: {tags_field!r}: expected integers from 0")
    # Tokenizers treat a word after a space differently from the first one.
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
  return TokenRows({**columns, "tag": column}, vocabulary, f"tagged_text({path!r})")


def questions(
  *,
  path: str,
  tokenizer: str | Mapping[str, Any],
  length: int = 384,
  stride: int = 128,
) -> TokenRows:
  """Questions about a context, whose answers are spans of it, as in SQuAD.

  A context that is too long for a row is split into overlapping windows, each in a row
  with the question before it. A window without the whole answer has none.

  Args:
    path: a file with a JSON object on each line, local or on object storage: `question`
      and `context`, and `answer` and `start`, the index of the answer's first character
      in the context; an `answer` of null for none.
    tokenizer: see `maskjax.data.text.text`.
    length: number of tokens of a row.
    stride: number of tokens of the context that two neighboring windows share.

  Returns:
    Rows like those of `text`, with `kind`, int32 [L], 1 in the context; `start` and
    `end`, int32, the positions of the answer's first and last token, 0 where there is
    none; and `question`, int32, the index of the line.

  Raises:
    UserError: no such file; a line without question, context or a valid answer; or a
      question so long that windows of the context cannot overlap by `stride`.
  """
  vocabulary = read_vocabulary(tokenizer)
  parts, answers = [], []
  lines = list(_lines(path, {"question": str, "context": str}))
  encoded = zip(
    lines,
    vocabulary.encode([line.entries["question"] for line in lines]),
    vocabulary.encode([line.entries["context"] for line in lines]),
    strict=True,
  )
  for number, (line, question, context) in enumerate(encoded):
    room = length - len(question.ids) - 3
    if room <= stride:
      raise UserError(
        f"{line.location}: a question of {len(question.ids)} tokens leaves {room} for "
        f"its context: expected more than stride={stride}"
      )
    first, last = _answer(line, context)
    for begin in range(0, max(len(context.ids) - stride, 1), room - stride):
      window = context.part(begin, begin + room)
      held = begin <= first and last < begin + room and first >= 0
      shift = len(question.ids) + 2 - begin
      parts.append([question, window])
      answers.append((first + shift, last + shift, number) if held else (0, 0, number))
  columns = _rows(parts, vocabulary, length)
  labels = np.array(answers, np.int32).reshape(-1, 3).T
  more = dict(zip(("start", "end", "question"), labels, strict=True))
  return TokenRows({**columns, **more}, vocabulary, f"questions({path!r})")


def _answer(line: _Line, context: Encoded) -> tuple[int, int]:
  """Indices of the first and the last token of a line's answer; -1 and -1 for none."""
  answer, start = line.entries.get("answer"), line.entries.get("start")
  if answer is None:
    return -1, -1
  text = line.entries["context"]
  if (
    type(start) is not int or text[start : start + len(answer)] != answer or not answer
  ):
    raise UserError(
      f"{line.location}: expected the answer {answer!r} in the context, from its "
      f"character start={start} on"
    )
  # Tokens that share characters with the answer.
  begins, ends = context.starts, context.starts + context.characters
  held = np.flatnonzero((ends > start) & (begins < start + len(answer)))
  if not len(held):
    raise UserError(f"{line.location}: the answer {answer!r} has no tokens")
  return int(held[0]), int(held[-1])


def _rows(
  parts: Sequence[Sequence[Encoded]], vocabulary: Vocabulary, length: int
) -> dict[str, np.ndarray]:
  """Rows of one document each, of one part or two; long ones are truncated."""
  if length < 3:
    raise UserError(f"length={length}: expected at least 3, for a token between two")
  shape = len(parts), length
  columns = {
    name: np.full(shape, value, np.int32)
    for name, value in dict(
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
  """Joins words, each encoded by itself, into one text."""
  numbers = [np.full(len(part.ids), i, np.int32) for i, part in enumerate(parts)]
  return Encoded(
    ids=np.concatenate([part.ids for part in parts]),
    words=np.concatenate(numbers),
    characters=np.concatenate([part.characters for part in parts]),
    starts=np.concatenate([part.starts for part in parts]),
  )


def _lines(path: str, expected: Mapping[str, type]) -> Iterator[_Line]:
  """Reads the objects of a file, and checks that they have these keys and types."""
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"{path}: expected a file of JSON lines, there is none")
  found = 0
  for number, line in enumerate(file.read_bytes().splitlines(), start=1):
    location = f"{path}:{number}"
    try:
      entries = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
      raise UserError(f"{location}: expected an object in JSON, but {error}") from error
    for key, kind in expected.items():
      value = entries.get(key) if isinstance(entries, dict) else None
      if type(value) is not kind or value in ("", []):
        raise UserError(f"{location}: expected {key!r}, {kind.__name__}")
    found += 1
    yield _Line(location, entries)
  if not found:
    raise UserError(f"{path}: expected JSON lines, it is empty")
