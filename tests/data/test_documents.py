"""Where texts come from, and the errors at bad ones."""

import json

import pytest

from maskjax import UserError
from maskjax.data import documents


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "b.txt").write_text("One line.\nAnother one.\n\nA paragraph.\n")
  (tmp_path / "a.txt").write_bytes("\ufeffCaf\u00e9".encode())
  (tmp_path / "c.md").write_text("left out")
  return tmp_path


def test_files_in_the_order_of_their_names(folder):
  found = documents.text_files(root=str(folder))
  assert list(found) == ["Caf\u00e9", "One line.\nAnother one.\n\nA paragraph.\n"]
  assert found.locations == [f"{folder}/a.txt", f"{folder}/b.txt"]
  assert list(documents.text_files(root=f"{folder}/c.md")) == ["left out"]


@pytest.mark.parametrize(
  ("each", "texts", "lines"),
  [
    ("paragraph", ["One line.\nAnother one.", "A paragraph."], [1, 4]),
    ("line", ["One line.", "Another one.", "A paragraph."], [1, 2, 4]),
  ],
)
def test_parts_of_a_file(folder, each, texts, lines):
  found = documents.text_files(root=str(folder), pattern="b.*", each=each)
  assert list(found) == texts
  assert found.locations == [f"{folder}/b.txt:{line}" for line in lines]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"good\nbad \xff\n", r"d.txt:2: byte 0xff is not UTF-8: expected text; on_bad="),
    (b" \n\n", r"d.txt: blank: expected text"),
    (b"", r"d.txt: blank"),
  ],
)
@pytest.mark.parametrize("each", ["file", "line"])
def test_bad_files(folder, content, message, each):
  (folder / "d.txt").write_bytes(content)
  with pytest.raises(UserError, match=message):
    documents.text_files(root=str(folder), each=each)
  found = documents.text_files(root=str(folder), each=each, on_bad="skip")
  assert found.skipped == 1 and len(found) == (2 if each == "file" else 4)


def test_lines_of_json(tmp_path):
  lines = [json.dumps({"text": text, "id": 1}) for text in ("one", "two\u2028more")]
  file = tmp_path / "corpus.jsonl"
  file.write_text("\n".join(lines))
  found = documents.jsonl(path=str(file))
  assert list(found) == ["one", "two\u2028more"]
  assert found.locations[1] == f"{file}:2"


@pytest.mark.parametrize(
  ("line", "message"),
  [
    (b"{", ":2: not JSON"),
    (b'{"txt": "a"}', ":2: no object with a text as 'text'"),
    (b'["text"]', ":2: no object with a text"),
    (b'{"text": 3}', ":2: no object with a text"),
    (b'{"text": " "}', ":2: blank"),
    (b"\xff", ":2:1: byte 0xff"),
    (b"", ":2: not JSON"),
  ],
)
def test_bad_lines_of_json(tmp_path, line, message):
  file = tmp_path / "corpus.jsonl"
  file.write_bytes(b'{"text": "good"}\n' + line + b"\n")
  with pytest.raises(UserError, match=message):
    documents.jsonl(path=str(file))
  found = documents.jsonl(path=str(file), on_bad="skip")
  assert (list(found), found.skipped) == (["good"], 1)


def test_sections_of_pythons_reference_are_held_out():
  train, test, everything = (
    documents.python_reference(split=split) for split in ("train", "test", "all")
  )
  assert sorted([*train.locations, *test.locations]) == sorted(everything.locations)
  assert sum(map(len, everything)) > 300_000 and len(test) > 20
  paragraphs = {part for text in train for part in text.split("\n\n")}
  assert not paragraphs & {part for text in test for part in text.split("\n\n")}


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda root: documents.text_files(root=f"{root}/none"), "expected text files"),
    (lambda root: documents.text_files(root=root, pattern="*.html"), "like .*html"),
    (lambda root: documents.text_files(root=root, each="lines"), "did you mean 'line'"),
    (lambda root: documents.text_files(root=root, on_bad="skp"), "did you mean 'skip'"),
    (lambda root: documents.jsonl(path=f"{root}/none.jsonl"), "none.jsonl: expected"),
    (lambda root: documents.python_reference(split="tests"), "did you mean 'test'"),
  ],
)
def test_mistakes(folder, make, message):
  with pytest.raises(UserError, match=message):
    make(str(folder))
