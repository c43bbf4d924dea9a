"""Documents: texts of files, of other libraries, and of Python itself."""

import dataclasses
import itertools
import json
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

from maskjax import storage
from maskjax.data.array_records import tfds_examples
from maskjax.errors import UserError, did_you_mean

__all__ = [
  "hf_dataset",
  "jsonl",
  "python_docstrings",
  "python_reference",
  "text_files",
  "tfds_texts",
]

_UNITS = ("file", "paragraph", "line")


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Documents(Sequence[str]):
  """Texts, none of which is blank.

  Attributes:
    texts: the texts.
    locations: the origin of each text, for messages: for example a file and a line.
    name: what messages call the documents.
    skipped: number of bad texts that were left out.
  """

  texts: Sequence[str]
  locations: Sequence[str]
  name: str
  skipped: int = 0

  def __len__(self) -> int:
    return len(self.texts)

  def __getitem__(self, index: Any) -> Any:
    return self.texts[index]

  def __repr__(self) -> str:
    return self.name


class _Entry(NamedTuple):
  """A possible document. A bad one has a `problem`, and an empty text."""

  location: str
  text: str
  problem: str = ""


def text_files(
  *, root: str, pattern: str = "*.txt", each: str = "file", on_bad: str = "raise"
) -> Documents:
  """The text files of a folder, in UTF-8.

  Args:
    root: the folder, local or on object storage, or a single file.
    pattern: glob pattern of the files; `**/*.txt` includes those of subfolders.
    each: the unit that is a document: a `file`, a `paragraph` up to a blank line, or a
      `line` that is not blank.
    on_bad: `raise` an error for a file that is blank or not UTF-8, or `skip` and count
      it.

  Raises:
    UserError: no such folder, or no such file in it; under `raise`, a file is blank or
      not UTF-8: the message has the file and the line.
  """
  if each not in _UNITS:
    raise UserError(f"each={each!r}: {did_you_mean(each, _UNITS)}")
  folder = storage.reach(root)
  files = [folder] if folder.is_file() else sorted(folder.glob(pattern))
  if not files:
    raise UserError(f"{root}: expected text files, there is none like {pattern}")

  def entries() -> Iterator[_Entry]:
    for file in files:
      whole = _decode(str(file), file.read_bytes())
      blank = not whole.text.strip()
      yield from [whole] if blank or each == "file" else _units(whole, each)

  return _collect(entries(), on_bad, f"text_files(root={root!r})")


def jsonl(*, path: str, field: str = "text", on_bad: str = "raise") -> Documents:
  """A file with a JSON object on each line.

  Args:
    path: of the file, local or on object storage.
    field: the key of the text.
    on_bad: `raise` an error for a line that is no such object, or whose text is blank,
      or `skip` and count it.

  Raises:
    UserError: no such file; under `raise`, a line is bad: the message has its number.
  """
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"{path}: expected a file of JSON lines, there is none")

  def entry(location: str, line: bytes) -> _Entry:
    read = _decode(location, line)
    if read.problem:
      return read
    try:
      found = json.loads(read.text)
    except ValueError:
      return _Entry(location, "", "not JSON")
    if not isinstance(found, dict) or not isinstance(found.get(field), str):
      return _Entry(location, "", f"no object with a text as {field!r}")
    return _Entry(location, found[field])

  lines = enumerate(file.read_bytes().splitlines(), start=1)
  entries = (entry(f"{path}:{number}", line) for number, line in lines)
  return _collect(entries, on_bad, f"jsonl(path={path!r})")


def hf_dataset(
  *, path: str, split: str = "train", field: str = "text", on_bad: str = "raise"
) -> Documents:
  """A data set of Hugging Face's library `datasets`, which has to be installed.

  Args:
    path: a folder that `save_to_disk` wrote, or what `load_dataset` takes.
    split: a split or a slice of one, `train[:10%]`.
    field: the column that is the text.
    on_bad: `raise` an error for a row that is blank, or `skip` and count it.

  Raises:
    UserError: the library is not installed, or has no such data set, split or column;
      under `raise`, a row is blank.
  """
  name = f"hf_dataset(path={path!r}, split={split!r})"
  try:
    import datasets
  except ImportError as error:
    raise UserError(f"{name}: needs the package datasets") from error
  try:
    if storage.path(path).is_dir():
      found = datasets.load_from_disk(path)
      found = found[split] if isinstance(found, datasets.DatasetDict) else found
    else:
      found = datasets.load_dataset(path, split=split)
    column = found[field]
  except Exception as error:  # of several types, some of them of other libraries
    raise UserError(f"cannot read {name}: {error}") from error
  entries = (_Entry(f"{path}, row {i}", text) for i, text in enumerate(column))
  return _collect(entries, on_bad, name)


def iterable(texts: Iterable[str], *, on_bad: str = "raise") -> Documents:
  """Documents from any iterable of texts.

  Args:
    texts: strings, or bytes in UTF-8.
    on_bad: `raise` an error for one that is blank or no text, or `skip` and count it.

  Raises:
    UserError: under `raise`, a text is bad; or there is no good one.

  Example:
    >>> iterable(["to be", "or not"])[1]
    'or not'
  """

  def entry(number: int, text: Any) -> _Entry:
    location = f"text {number}"
    if isinstance(text, bytes):
      return _decode(location, text)
    problem = "" if isinstance(text, str) else "not a text"
    return _Entry(location, text if not problem else "", problem)

  entries = (entry(number, text) for number, text in enumerate(texts))
  return _collect(entries, on_bad, "texts")


def tfds_texts(
  *,
  dataset: str,
  split: str,
  data_dir: str | None = None,
  field: str = "text",
  on_bad: str = "raise",
) -> Documents:
  """A data set that TensorFlow Datasets has prepared, see `maskjax.data.tfds`.

  Args:
    dataset: its name, with config and version if wanted.
    split: a split or a slice of one.
    data_dir: where data sets are prepared; None for the library's own default.
    field: the feature that is the text.
    on_bad: `raise` an error for a text that is blank or not UTF-8, or `skip` and count
      it.

  Raises:
    UserError: no such data set, split or feature; under `raise`, a text is blank or
      not UTF-8.
  """
  name = f"tfds_texts(dataset={dataset!r}, split={split!r})"
  rows = tfds_examples(name, dataset, split, data_dir=data_dir, features=[field])
  texts = (rows[number][field] for number in range(len(rows)))
  return dataclasses.replace(iterable(texts, on_bad=on_bad), name=name)


def python_reference(*, split: str = "train") -> Documents:
  """The reference of the Python language, in English, as `help()` shows it.

  Many of its 79 topics repeat paragraphs of others. Only one copy of a paragraph is
  kept, so that no held-out text is in the training split. The text is that of the
  running Python; other versions differ in some sections.

  Args:
    split: `train`, `test` (every tenth section) or `all`.

  Returns:
    Sections of at least a thousand characters, in whole paragraphs; the last section
    of a topic may be shorter.

  Raises:
    UserError: no such split.

  Example:
    >>> python_reference(split="test").locations[0]
    'topic assert, section 1'
  """
  from pydoc_data.topics import topics

  # The longest topic first: the others quote it.
  kept: dict[str, str] = {}
  for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
    for paragraph in topics[name].split("\n\n"):
      kept.setdefault(paragraph, name)
  entries: list[_Entry] = []
  for name in sorted(topics):
    paragraphs = [p for p in topics[name].split("\n\n") if kept[p] == name]
    entries += _sections(f"topic {name}", dict.fromkeys(paragraphs))
  splits = {
    "train": [entry for i, entry in enumerate(entries) if i % 10],
    "test": entries[::10],
    "all": entries,
  }
  if split not in splits:
    hint = did_you_mean(split, splits)
    raise UserError(f"python_reference has no {split!r}: {hint}")
  return _collect(splits[split], "raise", f"python_reference(split={split!r})")


def _sections(location: str, paragraphs: Iterable[str]) -> Iterator[_Entry]:
  """Joins neighboring paragraphs into sections of at least a thousand characters."""
  section: list[str] = []
  number = 1
  for paragraph in paragraphs:
    section.append(paragraph)
    if sum(map(len, section)) >= 1000:
      yield _Entry(f"{location}, section {number}", "\n\n".join(section))
      section, number = [], number + 1
  if section:
    yield _Entry(f"{location}, section {number}", "\n\n".join(section))


def python_docstrings() -> Documents:
  """The docstrings of Python's standard library, one document per module.

  English about programming like `python_reference`, on other topics. The text is that
  of the running Python.

  Raises:
    UserError: this Python comes without the source files of its library.

  Example:
    >>> len(python_docstrings()) > 50
    True
  """
  folder = sysconfig.get_paths()["stdlib"]
  quoted = re.compile(r'^[ \t]*[rR]?"""(.*?)"""', re.DOTALL | re.MULTILINE)

  def entries() -> Iterator[_Entry]:
    for file in sorted(storage.path(folder).glob("*.py")):
      read = _decode(str(file), file.read_bytes())
      text = "\n\n".join(part.strip() for part in quoted.findall(read.text))
      if text.strip():
        yield _Entry(str(file), text)

  return _collect(entries(), "raise", "python_docstrings()")


def _decode(location: str, data: bytes) -> _Entry:
  try:
    return _Entry(location, data.decode("utf-8-sig"))
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b"\n") + 1
    return _Entry(
      f"{location}:{line}", "", f"byte 0x{data[error.start]:02x} is not UTF-8"
    )


def _units(whole: _Entry, each: str) -> Iterator[_Entry]:
  """The paragraphs or the lines of a file."""
  lines = enumerate(whole.text.splitlines(), start=1)
  for has_text, group in itertools.groupby(lines, lambda line: bool(line[1].strip())):
    rows = list(group)
    parts = [rows] if each == "paragraph" else [[row] for row in rows]
    for part in parts if has_text else []:
      text = "\n".join(line for _, line in part)
      yield _Entry(f"{whole.location}:{part[0][0]}", text)


def _collect(entries: Iterable[_Entry], on_bad: str, name: str) -> Documents:
  """Collects the good entries; counts the bad ones, or raises at the first of them."""
  if on_bad not in ("raise", "skip"):
    raise UserError(f"on_bad={on_bad!r}: {did_you_mean(on_bad, ('raise', 'skip'))}")
  good, skipped = [], 0
  for entry in entries:
    problem = entry.problem or ("" if entry.text.strip() else "blank")
    if not problem:
      good.append(entry)
    elif on_bad == "raise":
      raise UserError(
        f"{entry.location}: {problem}: expected text; on_bad='skip' leaves it out"
      )
    else:
      skipped += 1
  if not good:
    raise UserError(f"{name}: expected documents, but all {skipped} are bad")
  texts, locations = [entry.text for entry in good], [entry.location for entry in good]
  return Documents(texts, locations, name, skipped)
