"""Texts in rows: nothing is lost, nothing crosses, little is padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskjax import UserError
from maskjax.data import bind_transform, documents
from maskjax.data.packing import best_fit, packed
from maskjax.tokens import vocabulary

TEXTS = ["to be or not to be", "that is the question", "be" * 40, "whether", " "]


@pytest.fixture(scope="module")
def words():
  return vocabulary.train_bpe(TEXTS, size=270)


def parts_of(source):
  """The parts of all rows: token, position and word of each."""
  for row in source:
    assert row["characters"][row["word"] < 0].sum() == 0
    for segment in range(1, row["segment"].max() + 1):
      here = np.flatnonzero(row["segment"] == segment)
      assert (np.diff(here) == 1).all()
      yield tuple(row[name][here] for name in ("token", "position", "word"))


def rows(columns):
  count = len(columns["token"])
  return [{name: c[i] for name, c in columns.items()} for i in range(count)]


@pytest.mark.parametrize("length", [3, 9, 16, 200])
def test_all_tokens_are_there_in_order(words, length):
  parts = list(parts_of(rows(packed(TEXTS, words, length=length))))
  for token, position, word in parts:
    assert (token[0], token[-1]) == (words.first, words.last)
    assert (position == np.arange(len(token))).all()
    assert (word[0], word[-1]) == (-1, -1)
    assert (np.diff(word[1:-1]) >= 0).all() and word[1] >= 0
  # The parts are not labeled by their text, but together they have the same tokens.
  found = np.sort(np.concatenate([token[1:-1] for token, _, _ in parts]))
  expected = np.sort(np.concatenate([found.ids for found in words.encode(TEXTS)]))
  np.testing.assert_array_equal(found, expected)


def test_words_stay_whole_where_they_fit(words):
  text = TEXTS[0]
  longest = max(np.bincount(words.encode([text])[0].words))
  parts = list(parts_of(rows(packed([text], words, length=longest + 2))))
  found = [word for token, _, _ in parts for word in words.decode(token).split()]
  assert len(parts) > 1 and sorted(found) == sorted(text.split())


def test_padding_is_marked(words):
  (row,) = rows(packed(["be"], words, length=9))
  padding = row["segment"] == 0
  assert padding.any() and (row["token"][padding] == words.pad).all()
  assert (row["word"][padding] == -1).all()


@pytest.mark.parametrize(("size", "length"), [(4096, 128), (4096, 512), (512, 512)])
def test_pythons_reference_is_packed_with_less_than_a_fiftieth_of_padding(size, length):
  texts = documents.python_reference(split="train")
  words = vocabulary.train_bpe(texts, size=size)
  columns = packed(texts, words, length=length)
  assert np.mean(columns["segment"] == 0) < 0.02
  # Though texts were cut to fill the rows up, nothing is lost.
  inside = columns["token"][columns["word"] >= 0]
  expected = np.concatenate([found.ids for found in words.encode(texts)])
  np.testing.assert_array_equal(np.sort(inside), np.sort(expected))
  assert columns["characters"].sum() == sum(map(len, texts))


def test_joined_documents_are_one_in_which_words_stay_apart(words):
  row = rows(packed(["be", "to be or", "be"], words, length=40))[0]
  assert row["segment"].max() == 3 and row["segment"][-1] == 0
  joined = bind_transform("join_documents")(row)
  filled = (row["segment"] > 0).sum()
  assert joined["segment"].tolist() == [1] * filled + [0] * (40 - filled)
  assert joined["position"][:filled].tolist() == list(range(filled))
  assert not joined["position"][filled:].any()
  for name in ("token", "characters"):
    np.testing.assert_array_equal(joined[name], row[name])
  # One word a number, in order, and none where there was none.
  inside = row["word"] >= 0
  assert ((joined["word"] >= 0) == inside).all()
  before = list(zip(row["segment"][inside], row["word"][inside], strict=True))
  numbers = {word: n for n, word in enumerate(dict.fromkeys(before))}
  assert joined["word"][inside].tolist() == [numbers[word] for word in before]
  with pytest.raises(UserError, match="found no 'segment': expected rows of tokens"):
    bind_transform("join_documents")({"image": np.zeros(3)})


@given(st.lists(st.integers(1, 20), max_size=50))
def test_pieces_fit_and_stand_once(lengths):
  found = best_fit(lengths, 20)
  assert sorted(i for row in found for i in row) == list(range(len(lengths)))
  sums = [sum(lengths[i] for i in row) for row in found]
  assert all(0 < total <= 20 for total in sums)
  # No two rows could have been one.
  assert all(a + b > 20 for a, b in zip(sorted(sums), sorted(sums)[1:], strict=False))


def test_mistakes(words):
  with pytest.raises(UserError, match="length=2: expected at least 3"):
    packed(TEXTS, words, length=2)
