"""Texts to tokens and back."""

import pytest
from tokenizers import Tokenizer, models

from maskjax import UserError
from maskjax.tokens import vocabulary

TEXTS = ["to be or not to be", "that is the question"]


def test_texts_come_back():
  words = vocabulary.train_bpe(TEXTS, size=300)
  for text in (*TEXTS, "Caf\u00e9 \U0001f600\n\tnever seen"):
    found = words.encode([text])[0]
    assert words.decode(found.ids) == text
    assert len(found.words) == len(found.ids) and found.words[0] == 0
    assert found.characters.sum() == len(text)
  assert len(words) <= 300 and words.special.tolist() == [0, 1, 2, 3]


def test_the_same_texts_give_the_same_vocabulary():
  first, second = (vocabulary.train_bpe(TEXTS * 9, size=300) for _ in range(2))
  assert first == second and first != vocabulary.train_bpe(TEXTS, size=270)


def test_a_file_gives_the_same_ids(tmp_path):
  words = vocabulary.train_bpe(TEXTS, size=300)
  words.save(tmp_path / "tokenizer.json")
  for path in (tmp_path, tmp_path / "tokenizer.json"):
    again = vocabulary.load(path)
    assert (again.encode(TEXTS)[0].ids == words.encode(TEXTS)[0].ids).all()
    assert (again.mask, again.pad) == (words.mask, words.pad)


def test_mistakes(tmp_path):
  with pytest.raises(UserError, match="size=259: expected at least 260"):
    vocabulary.train_bpe(TEXTS, size=259)
  with pytest.raises(UserError, match="expected a tokenizer.json, there is none"):
    vocabulary.load(tmp_path)
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(UserError, match="tokenizer.json: expected a tokenizer, but"):
    vocabulary.load(tmp_path)
  bare = Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2}, "[PAD]"))
  bare.save(str(tmp_path / "tokenizer.json"))
  with pytest.raises(UserError, match=r"no mask token: expected"):
    vocabulary.load(tmp_path)
