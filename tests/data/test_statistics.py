"""Scores of tokens by statistics of a corpus, each once more by plain loops."""

import collections
import functools
import math

import numpy as np
import pytest
from helpers.text.rows import REFERENCE, source

from maskjax.data import lexicon, statistics
from maskjax.data.documents import iterable
from maskjax.data.packing import packed
from maskjax.data.taggers import english
from maskjax.data.text import text
from maskjax.data.word_vectors import context_vectors, cosine_similarities
from maskjax.errors import UserError

DOMAIN = ["the cell wall of a cell", "a cell and the wall", "proteins of the cell wall"]
GENERAL = ["the wall of the house", "a house and a dog", "the dog of a man", "the man"]


def documents(texts):
  return iterable(texts)


def domain():
  return DOMAIN


def general():
  return GENERAL


@functools.cache
def columns(which=domain, length=40):
  return packed(which(), source().vocabulary, length=length)


def words_of(rows):
  """The documents of rows, as lists of their words' texts and positions."""
  vocabulary, found = source().vocabulary, collections.OrderedDict()
  for r, (segments, words) in enumerate(
    zip(rows["segment"], rows["word"], strict=True)
  ):
    for i, (segment, word) in enumerate(zip(segments, words, strict=True)):
      if word >= 0:
        document = found.setdefault((r, segment), collections.OrderedDict())
        document.setdefault(word, []).append((r, i))
  return [
    [
      (vocabulary.decode([rows["token"][at] for at in where]).strip().lower(), where)
      for where in document.values()
    ]
    for document in found.values()
  ]


def test_pointwise_information_by_loops():
  rows = {name: column[:12] for name, column in source().columns.items()}
  size = len(source().vocabulary)
  pairs, alone = collections.Counter(), collections.Counter()
  for tokens, segments, words in zip(
    rows["token"], rows["segment"], rows["word"], strict=True
  ):
    for i in range(len(tokens)):
      alone[tokens[i]] += words[i] >= 0
      for j in range(max(0, i - 3), min(len(tokens), i + 4)):
        if i != j and segments[i] == segments[j] and words[i] >= 0 and words[j] >= 0:
          pairs[tokens[i], tokens[j]] += 1
  expected = np.zeros((size, size))
  for (a, b), count in pairs.items():
    share = count / sum(pairs.values())
    apart = alone[a] * alone[b] / sum(alone.values()) ** 2
    expected[a, b] = math.log(share / apart)
  found = statistics.pointwise_information(rows, size, window=3)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert (found < 0).any() and (found > 1).any()


def test_the_score_of_a_mask_by_loops():
  rng = np.random.default_rng(0)
  information, masks = rng.normal(size=(6, 6)), rng.random((4, 6)) < 0.5
  expected = [
    sum(information[i, j] for i in range(6) for j in range(6) if m[i] and not m[j])
    for m in masks
  ]
  found = statistics.informative_score(information, masks)
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_informative_tokens_are_masked_more_often():
  """The best of many masks masks more information than the only one drawn."""
  options = dict(vocabulary=source().vocabulary, passes=3, window=5)
  rows = source().columns
  one, best = (
    statistics.informative_rates(rows=rows, training=rows, candidates=n, **options)
    for n in (1, 30)
  )
  is_word = rows["word"] >= 0
  for rates in (one, best):
    assert rates.dtype == np.float32 and (rates[~is_word] == 0).all()
    assert abs(rates[is_word].mean() - 0.15) < 0.01
  tokens, counts = np.unique(rows["token"][is_word], return_counts=True)
  common = tokens[counts > 100]
  spread = [
    np.std([rates[(rows["token"] == t) & is_word][0] for t in common])
    for rates in (one, best)
  ]
  assert spread[1] > 2 * spread[0]
  table = statistics.pointwise_information(rows, len(options["vocabulary"]), window=5)
  by_token = collections.defaultdict(list)
  for token, segment, words in zip(
    rows["token"], rows["segment"], is_word, strict=True
  ):
    token, segment = token[words], segment[words]
    near = (segment == segment[:, None]) & ~np.eye(len(token), dtype=bool)
    total = (table[np.ix_(token, token)] * near).sum(axis=1)
    for t, more in zip(token, (total - total.mean()) / total.std(), strict=True):
      by_token[t].append(more)
  mean = np.array([np.mean(by_token[t]) for t in common])
  rate = np.array([best[(rows["token"] == t) & is_word][0] for t in common])
  assert np.corrcoef(mean, rate)[0, 1] > 0.6


def test_rates_of_training_for_held_out_rows():
  vocabulary = source().vocabulary
  training = {name: column[:40] for name, column in source().columns.items()}
  rows = {name: column[40:60] for name, column in source().columns.items()}
  options = dict(vocabulary=vocabulary, training=training, mask_ratio=0.2)
  own = statistics.informative_rates(rows=training, **options)
  held_out = statistics.informative_rates(rows=rows, **options)
  is_word = training["word"] >= 0
  known = dict(zip(training["token"][is_word], own[is_word], strict=True))
  for token, word, rate in zip(
    rows["token"].flat, rows["word"].flat, held_out.flat, strict=True
  ):
    assert rate == (np.float32(known.get(token, 0.2)) if word >= 0 else 0)
  assert not {*rows["token"].flat} <= {*training["token"].flat}


def icf_by_loops():
  """What each word of the domain scores."""
  inside = [w for document in words_of(columns()) for w, _ in document]
  other = [{w for w, _ in document} for document in words_of(columns(general))]
  return {
    word: inside.count(word)
    / len(inside)
    * math.log((1 + len(other)) / (1 + sum(word in document for document in other)))
    for word in set(inside)
  }


def test_tf_icf_by_loops():
  book = lexicon.Lexicon(source().vocabulary)
  inside, outside = book.read(columns()), book.read(columns(general))
  parts = lexicon.number_documents(columns(general))
  found = statistics.tf_icf(inside, parts, outside, len(book.words))
  expected = icf_by_loops()
  assert expected["cell"] == max(expected.values()) and len(expected) == 7
  for word, score in zip(book.words, found, strict=True):
    np.testing.assert_allclose(score, expected.get(word, 0), rtol=1e-12)
  best = book.top_words(found, 2, ignored={"cell"})
  assert [book.words[i] for i in best] == ["wall", "proteins"]


def test_vectors_of_contexts_keep_all_cosine_similarities():
  """The left factor has the cosine_similarities of the table that it factors."""
  rng = np.random.default_rng(0)
  ids, parts = rng.integers(0, 6, 80), np.repeat(np.arange(4), 20)
  table = np.zeros((6, 6))
  for i in range(80):
    for j in range(max(0, i - 2), min(80, i + 3)):
      table[ids[i], ids[j]] += i != j and parts[i] == parts[j]
  ratio = table * table.sum() / np.outer(table.sum(axis=1), table.sum(axis=0))
  expected = np.maximum(np.log(np.maximum(ratio, 1e-9)), 0)
  found = context_vectors(ids, parts, 6, window=2)
  np.testing.assert_allclose(
    cosine_similarities(found, found),
    cosine_similarities(expected, expected),
    atol=1e-9,
  )
  assert context_vectors(ids, parts, 6, window=2, width=2).shape == (6, 2)


def test_similarity_to_the_nearest_anchor(tmp_path):
  vocabulary = source().vocabulary
  table = np.random.default_rng(0).normal(size=(len(vocabulary), 4))
  np.save(tmp_path / "table.npy", table)
  found = statistics.anchor_similarity(
    rows=columns(general),
    vocabulary=vocabulary,
    training=columns(),
    reference=columns(general),
    anchors=2,
    vectors=str(tmp_path / "table.npy"),
    ignored=(),
  )
  inside = {w: at for document in words_of(columns()) for w, at in document}

  def vector(rows, positions):
    return np.mean([table[rows["token"][at]] for at in positions], axis=0)

  def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

  # Of a word's spellings, with and without a space, the first one found counts.
  first = {}
  for rows in (columns(), columns(general)):
    for document in words_of(rows):
      for word, positions in document:
        first.setdefault(word, vector(rows, positions))
  scores = icf_by_loops()
  anchors = sorted(inside, key=lambda w: -scores[w])[:2]
  assert anchors == ["cell", "wall"]
  checked = 0
  for document in words_of(columns(general)):
    for word, positions in document:
      expected = max(cosine(first[word], first[anchor]) for anchor in anchors)
      np.testing.assert_allclose([found[at] for at in positions], expected, rtol=1e-5)
      checked += len(positions)
  assert checked == (columns(general)["word"] >= 0).sum() > (found == 1).sum()


def lengths(words, *, least):
  return np.array([[max(len(word), least), 1.0] for word in words])


def test_vectors_may_be_those_of_a_function():
  found = statistics.anchor_similarity(
    rows=columns(general),
    vocabulary=source().vocabulary,
    training=columns(),
    reference=columns(general),
    anchors=1,
    vectors=dict(name=f"{__name__}:lengths", least=2),
    ignored=(),
  )
  for document in words_of(columns(general)):
    for word, positions in document:
      (a, _), (b, _) = lengths([word, "cell"], least=2)
      expected = (a * b + 1) / np.sqrt((a * a + 1) * (b * b + 1))
      np.testing.assert_allclose([found[at] for at in positions], expected, rtol=1e-5)


def test_terms_are_numbered_in_each_row():
  vocabulary = source().vocabulary
  listed = ["Cell wall", "cell", "proteins of", "wall of the house"]
  found = statistics.terms(rows=columns(), vocabulary=vocabulary, terms=listed)
  numbers = {}
  for document in words_of(columns()):
    scores = [[found[at] for at in positions] for _, positions in document]
    assert all(len(set(of_word)) == 1 for of_word in scores)
    numbers[document[0][0]] = [of_word[0] for of_word in scores]
  # "the cell wall of a cell", "a cell and the wall", "proteins of the cell wall"
  whole, single, last = numbers["the"], numbers["a"], numbers["proteins"]
  assert [n > 0 for n in whole] == [False, True, True, False, False, True]
  assert whole[1] == whole[2] != whole[5]  # the longer term before the one in it
  assert [n > 0 for n in single] == [False, True, False, False, False]
  assert last[0] == last[1] > 0 == last[2] and last[3] == last[4] > 0
  for row in found:
    ordered = np.unique(row[row > 0])
    np.testing.assert_array_equal(ordered, np.arange(1, len(ordered) + 1))


def test_terms_that_set_a_domain_apart():
  found = statistics.terms(
    rows=columns(),
    vocabulary=source().vocabulary,
    training=columns(),
    reference=columns(general),
    count=1,
    ignored=("the",),
  )
  marked = {
    word
    for document in words_of(columns())
    for word, positions in document
    if found[positions[0]] > 0
  }
  assert marked == {"cell"}


def tag(words):
  return ["NOUN" if word == "cell" else "X" for word in words]


def test_classes_of_a_tagger_of_ones_own(monkeypatch):
  options = dict(rows=columns(), vocabulary=source().vocabulary)
  found = statistics.word_classes(**options, tagger=f"{__name__}:tag")
  names = statistics.taggers.CLASSES
  for document in words_of(columns()):
    for word, positions in document:
      expected = "NOUN" if word == "cell" else "X"
      assert {names[int(found[at])] for at in positions} == {expected}


def test_english_words():
  words = "Which names were not bound to 3 or four possible values ?".split()
  expected = "DET X AUX PART X PART NUM CCONJ NUM ADJ X PUNCT".split()
  assert english(words) == expected
  assert english(["In", "Paris", ",", "=="]) == ["ADP", "PROPN", "PUNCT", "SYM"]


def rows_of(documents, **statistic):
  return text(
    documents=f"{__name__}:{documents}",
    tokenizer=dict(documents=REFERENCE, size=300),
    length=40,
    statistic=statistic,
  )


def test_a_source_scores_its_rows_by_the_training_documents():
  statistic = dict(name="informative_rates", training=f"{__name__}:domain")
  held_out = rows_of("general", **statistic)
  expected = statistics.informative_rates(
    rows=columns(general), vocabulary=source().vocabulary, training=columns()
  )
  np.testing.assert_array_equal(held_out.columns["score"], expected)
  other = rows_of("general", **{**statistic, "training": f"{__name__}:general"})
  assert (other.columns["score"] != expected).any()
  assert held_out[0]["score"].dtype == np.float32


def wide(*, rows, vocabulary):
  return np.zeros((1, 2))


@pytest.mark.parametrize(
  ("statistic", "message"),
  [
    (dict(name="informative_rates"), "is missing its 'training'"),
    (dict(name="informative_rate"), "did you mean 'informative_rates'"),
    (dict(name="word_classes", tager="english"), "did you mean 'tagger'"),
    (dict(name="word_classes", tagger="german"), "no 'german' in"),
    (dict(name="terms"), "expected a list or a file, or training and reference"),
    (dict(name="terms", terms="/no/such"), "expected a list, or a file with one on"),
    (dict(name=f"{__name__}:wide"), r"float64 \[1, 2\]: expected float32 \["),
  ],
)
def test_mistakes(statistic, message):
  with pytest.raises(UserError, match=message):
    rows_of("domain", **statistic)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("informative_rates", dict(mask_ratio=0.0), "mask_ratio=0.0: expected a number"),
    ("informative_rates", dict(window=0), "window=0: expected at least 1"),
    ("informative_rates", dict(candidates=0), "candidates=0: expected at least 1"),
    ("anchor_similarity", dict(anchors=0), "anchors=0: expected at least 1"),
    (
      "anchor_similarity",
      dict(vectors="/no.npy"),
      "expected a .npy file, there is none",
    ),
    (
      "anchor_similarity",
      dict(ignored=set(" ".join(DOMAIN).split())),
      "not all documents of",
    ),
  ],
)
def test_numbers_that_cannot_be(name, options, message):
  given = dict(rows=columns(), vocabulary=source().vocabulary, training=columns())
  if name == "anchor_similarity":
    given["reference"] = columns(general)
  with pytest.raises(UserError, match=message):
    getattr(statistics, name)(**given, **options)


def test_both_spellings_of_a_preposition_have_its_class():
  for word in ("toward", "towards"):
    assert english(["He", "ran", word, "it"])[2] == "ADP"


def test_taggers_and_vectors_that_do_not_fit(tmp_path):
  options = dict(rows=columns(), vocabulary=source().vocabulary)
  with pytest.raises(UserError, match="returned the class 'NN' for [0-9]+ words"):
    statistics.word_classes(**options, tagger=f"{__name__}:penn")
  with pytest.raises(UserError, match="returned 1 classes for [0-9]+ words"):
    statistics.word_classes(**options, tagger=f"{__name__}:short")
  np.save(tmp_path / "table.npy", np.zeros((5, 4)))
  with pytest.raises(UserError, match=r"\[5, 4\]: expected a vector for each of 300"):
    statistics.anchor_similarity(
      **options,
      training=columns(),
      reference=columns(general),
      vectors=str(tmp_path / "table.npy"),
    )


def penn(words):
  return ["NN" for _ in words]


def short(words):
  return ["X"]
