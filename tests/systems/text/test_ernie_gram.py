"""ERNIE-Gram: its lexicon, its shortened rows and its loss, against NumPy."""

import collections
import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import REFERENCE

from maskjax.data.ngrams import fewest_parts, ngrams, t_statistics
from maskjax.data.text import text as text_rows
from maskjax.errors import UserError
from maskjax.masking import Mask, words
from maskjax.objectives import Step, Variables
from maskjax.systems import ernie_gram
from maskjax.systems.text.ernie_gram.objective import ErnieGram
from maskjax.tokens import Text

KEY = jax.random.key(5)
STEP = Step(KEY)
VOCAB, GRAMS = 300, 60
SHAPE = dict(
  vocab_size=VOCAB,
  num_ngrams=GRAMS,
  length=32,
  encoder=dict(width=8, depth=2, heads=2, norm_last=False),
  generator_depth=1,
)
STATISTIC = dict(name="ngrams", training=REFERENCE, bigrams=40, trigrams=20)


def without_mechanism(monkeypatch):
  """Without identities of n-grams: their tokens are predicted one by one, as BERT's."""
  whole = ErnieGram.loss

  def loss(self, variables, batch, step):
    found = whole(self, variables, batch, step)
    return dataclasses.replace(found, sum=found.metrics["fine"].sum)

  monkeypatch.setattr(ErnieGram, "loss", loss)


@functools.cache
def source():
  return text_rows(
    documents=REFERENCE,
    tokenizer=dict(documents=REFERENCE, size=VOCAB),
    length=32,
    statistic=STATISTIC,
  )


@functools.cache
def batch():
  """The rows with the most n-grams, and one that is not full."""
  columns = source().columns
  order = np.argsort(-(columns["score"] > 0).sum(axis=1), kind="stable")
  emptiest = np.argmax((columns["segment"] == 0).sum(axis=1))
  chosen = [*order[:3], emptiest]
  rows = {name: jnp.asarray(column[chosen]) for name, column in columns.items()}
  return {**rows, "index": jnp.arange(4)}


@functools.cache
def make(**options):
  return ernie_gram(**{**SHAPE, **options})


@functools.cache
def params():
  shapes = jax.eval_shape(make().init, KEY, batch()).params
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape) + 0.1, jnp.float32), shapes
  )


def some_mask():
  """The first two n-grams of each row, and the first other token."""
  text = Text.of(batch())
  score, is_word = np.asarray(text.score), np.asarray(text.is_word)
  masked = np.zeros(score.shape, bool)
  for row in range(4):
    for start in np.flatnonzero(score[row] > 0)[:2]:
      stop = start + 1
      while stop < 32 and score[row, stop] < 0:
        stop += 1
      masked[row, start:stop] = True
    masked[row, np.flatnonzero(is_word[row] & (score[row] == 0))[0]] = True
  most = int(masked.sum(axis=1).max())
  return Mask.at_most(jnp.asarray(masked), num_masked=most, spare=text.is_padding)


def first_ngrams(key, text, count):
  """A sampler of the masks of `some_mask`, whatever the key."""
  number = jnp.cumsum(text.score > 0)
  in_ngram = (text.score != 0) & (number > 0) & (number <= 2)
  alone = text.is_word & (text.score == 0)
  return in_ngram | (alone & (jnp.cumsum(alone) == 1))


def log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("length", [2, 3])
def test_t_statistics_by_hand(length):
  rng = np.random.default_rng(0)
  ids, parts = rng.integers(0, 4, size=60), np.repeat(np.arange(6), 10)
  runs = [
    tuple(ids[i : i + length].tolist())
    for i in range(60 - length + 1)
    if parts[i] == parts[i + length - 1]
  ]
  counts, total = collections.Counter(runs), len(runs)
  found, statistics = t_statistics(ids, parts, length)
  assert [tuple(g) for g in found.tolist()] == sorted(counts)
  for gram, t in zip(found.tolist(), statistics, strict=True):
    share = counts[tuple(gram)] / total
    chance = math.prod((ids == word).mean() for word in gram)
    expected = (share - chance) / math.sqrt(share * (1 - share) / total)
    assert t == pytest.approx(expected, rel=1e-9)


def test_the_fewest_parts():
  """Against all ways to cut."""
  rng = np.random.default_rng(0)
  known = {(0, 1), (1, 2), (2, 2), (0, 1, 2), (1, 1, 0)}
  for _ in range(40):
    ids, sizes = rng.integers(0, 3, size=7).tolist(), [1, 2, 1, 1, 3, 1, 1]
    least = 7
    for cuts in itertools.product([0, 1], repeat=6):
      edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), 7]
      parts = list(itertools.pairwise(edges))
      fits = all(
        b - a == 1 or (tuple(ids[a:b]) in known and sum(sizes[a:b]) <= 4)
        for a, b in parts
      )
      least = min(least, len(parts)) if fits else least
    found = fewest_parts(ids, sizes, known, longest=4)
    assert len(found) == least
    assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])]
    for a, b in found:
      assert b - a == 1 or tuple(ids[a:b]) in known


def test_rows_are_cut_into_ngrams_of_whole_words():
  columns, vocabulary = source().columns, source().vocabulary
  score, word = columns["score"], columns["word"]
  assert score.dtype == np.float32 and set(np.unique(score)) >= {-1, 0, 1}
  assert score.max() <= GRAMS and (score[word < 0] == 0).all()
  texts = collections.defaultdict(set)
  for row, start in np.argwhere(score > 0):
    stop = start + 1
    while stop < 32 and score[row, stop] < 0:
      stop += 1
    number = int(score[row, start])
    # Whole words, two or three.
    assert start == 0 or word[row, start - 1] != word[row, start]
    assert stop == 32 or word[row, stop] != word[row, stop - 1]
    assert len(set(word[row, start:stop])) == (2 if number <= 40 else 3)
    assert stop - start <= 6
    texts[number].add(vocabulary.decode(columns["token"][row, start:stop]).strip())
  assert len(texts) > 20 and all(len(found) == 1 for found in texts.values())
  found = set().union(*texts.values())
  assert "of the" in found and all(any(map(str.isalpha, text)) for text in found)


def test_ngrams_are_masked_whole():
  text = Text.of(batch())
  row = jax.tree.map(lambda column: column[0], text)
  score = np.asarray(row.score)
  draw = jax.jit(jax.vmap(lambda key: words.ngrams(key, row, jnp.int32(6))))
  masks = np.asarray(draw(jax.random.split(KEY, 60)))
  assert not masks[:, ~np.asarray(row.is_word)].any()
  assert (masks.sum(axis=1) <= 6).all() and masks.sum(axis=1).mean() > 5
  goes_on = np.flatnonzero(score < 0)
  assert len(goes_on)
  np.testing.assert_array_equal(masks[:, goes_on], masks[:, goes_on - 1])
  assert masks.any(axis=0).sum() == row.is_word.sum()


def test_rows_are_as_if_shortened():
  """The same features as of rows in which each masked n-gram is one token."""
  objective, mask = make(), some_mask()
  short = jax.jit(objective.shortened)(batch(), mask)
  text = Text.of(batch())
  model = objective.model.bind({"params": params()})
  identities = jnp.where(short.starts, short.identities, text.token)
  encode = jax.jit(model.encode_both)
  found = np.asarray(encode(short.text, identities, short.symbols, short.symbol_ids))

  @jax.jit
  def alone(text, identities):
    x = model.encoder.embed(text, model.vectors(identities))
    return model.encoder.run_blocks(x, text)

  masked, score = np.asarray(mask.masked), np.asarray(text.score)
  for row in (0, 3):
    kept = np.flatnonzero(~(masked[row] & (score[row] < 0)))
    segment = np.asarray(text.segment)[row, kept]
    position = np.concatenate(
      [np.arange((segment == s).sum()) for s in dict.fromkeys(segment.tolist())]
    )
    position = np.where(segment == 0, 0, position)
    by_hand = Text(
      token=text.token[row, kept][None],
      segment=jnp.asarray(segment)[None],
      position=jnp.asarray(position)[None],
      word=jnp.zeros((1, len(kept)), jnp.int32),
    )
    expected = np.asarray(alone(by_hand, identities[row, kept][None]))[0]
    filled = segment > 0
    np.testing.assert_allclose(
      found[row, kept][filled], expected[filled], rtol=1e-4, atol=1e-5
    )
  assert (np.asarray(short.identities)[score > 0] >= VOCAB).all()
  assert (np.asarray(short.identities)[score <= 0] < VOCAB).all()
  # An n-gram stands where its first token does.
  starts = np.asarray(short.starts)
  np.testing.assert_array_equal(starts, masked & (score >= 0))


def test_mask_symbols_see_the_text_and_themselves():
  objective, mask = make(), some_mask()
  short = jax.jit(objective.shortened)(batch(), mask)
  model = objective.model.bind({"params": params()})
  read = jnp.where(short.starts, 3, batch()["token"])
  ids = short.symbol_ids
  before = np.asarray(model.encode_both(short.text, read, short.symbols, ids))
  other = ids.at[:, 1].set((ids[:, 1] + 1) % 6)
  after = np.asarray(model.encode_both(short.text, read, short.symbols, other))
  changed = (before != after).any(axis=-1)
  assert changed[:, 33].all() and changed.sum() == 4
  assert np.asarray(mask.is_masked)[:3, 1].all()
  # Which token of its n-gram each stands for, and where that stands.
  text = Text.of(batch())
  score = np.asarray(text.score)
  for row, column in np.argwhere(np.asarray(mask.is_masked)):
    position = start = int(mask.masked_ids[row, column])
    while score[row, start] < 0:
      start -= 1
    assert ids[row, column] == position - start
    assert short.symbols.position[row, column] == short.text.position[row, start]
    assert short.symbols.segment[row, column] == text.segment[row, start]


def test_the_loss_is_the_papers():
  objective = make(plausible=0.5, detection_weight=2.0, mask_ratio=0.4)
  masking = dataclasses.replace(objective.masking, sampler=first_ngrams)
  objective = dataclasses.replace(objective, masking=masking)
  mask = objective.mask(batch(), STEP)
  np.testing.assert_array_equal(mask.masked, some_mask().masked)
  found = jax.jit(objective.loss)(Variables(params()), batch(), STEP)
  short, ids = objective.shortened(batch(), mask), mask.masked_ids
  tokens = np.asarray(batch()["token"])
  begun = jnp.where(short.starts, 3, batch()["token"])
  model = objective.model.bind({"params": params()})
  proposed = jax.jit(model.propose)(short.text, begun, ids)
  stands, drawn = objective.proposals(proposed, batch(), mask, STEP)
  stands = np.asarray(stands & short.starts)
  assert stands.any() and (np.asarray(short.starts) & ~stands).any()
  read = np.where(stands, drawn, begun)
  whole, fine, other = jax.jit(model.all_logits)(
    short.text, jnp.asarray(read), short.symbols, short.symbol_ids, ids
  )
  generator, whole, fine = (log_softmax(x) for x in (proposed, whole, fine))
  assert whole.shape[-1] == VOCAB + GRAMS and fine.shape[-1] == VOCAB
  p = 1 / (1 + np.exp(-np.asarray(other, np.float64)))
  starts, count = np.asarray(short.starts), 0
  identities = np.asarray(short.identities)
  expected = collections.Counter()
  for row in range(4):
    for column in np.flatnonzero(np.asarray(mask.is_masked)[row]):
      at = int(ids[row, column])
      expected["fine"] -= fine[row, column, tokens[row, at]]
      if starts[row, at]:
        count += 1
        expected["coarse"] -= whole[row, column, identities[row, at]]
        expected["generator"] -= generator[row, column, identities[row, at]]
    errors = []
    for at in np.flatnonzero(np.asarray(short.text.is_word)[row]):
      if starts[row, at] and not stands[row, at]:
        continue
      replaced = stands[row, at] and read[row, at] != identities[row, at]
      errors.append(-np.log(p[row, at] if replaced else 1 - p[row, at]))
    expected["detection"] += np.mean(errors) * starts[row].sum()
  for name in ("fine", "coarse", "generator", "detection"):
    np.testing.assert_allclose(found.metrics[name].sum, expected[name], rtol=1e-5)
  total = expected.total() + expected["detection"]  # which weighs 2
  assert found.weight == count
  np.testing.assert_allclose(found.sum, total, rtol=1e-5)


def test_proposals_are_drawn_from_the_generator():
  """By its probabilities, special tokens left out; and they teach it nothing."""
  objective, mask = make(plausible=1.0), some_mask()
  logits = jnp.zeros((4, mask.masked_ids.shape[1], VOCAB + GRAMS)).at[..., 310].set(5.0)
  drawn = []
  for key in jax.random.split(KEY, 30):
    stands, found = objective.proposals(logits, batch(), mask, Step(key))
    np.testing.assert_array_equal(stands, mask.masked)
    drawn.append(np.asarray(found)[np.asarray(mask.masked)])
  drawn = np.concatenate(drawn)
  expected = math.exp(5) / (math.exp(5) + VOCAB + GRAMS - 5)
  assert abs((drawn == 310).mean() - expected) < 0.05 and drawn.min() > 3


def test_evaluation_predicts_single_tokens():
  objective, variables = make(), Variables(params())
  found = jax.jit(objective.evaluate)(variables, batch(), STEP)
  assert 0 < found.metrics["bits_per_character"].value() < 20
  mask = objective.masking.draw(
    batch(), KEY, ratio=0.15, highest=0.15, sampler=words.tokens
  )
  text = objective.masking.with_mask_tokens(batch(), mask)
  logits = objective.predict(variables, text, mask)
  assert logits.shape == (4, 5, VOCAB)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(num_ngrams=0), "num_ngrams=0: expected at least 1"),
    (dict(mask="whole_words"), "mask='whole_words' splits n-grams: expected 'ngrams'"),
    (dict(longest=1), "longest=1: expected at least 2"),
    (dict(generator_depth=0), "generator_depth=0: expected at least 1"),
    (dict(plausible=1.5), "plausible=1.5: expected a number from 0 to 1"),
    (dict(detection_weight=-1.0), "detection_weight=-1.0: expected at least 0"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)


def test_data_without_ngrams_and_bad_lexicons():
  plain = {name: column for name, column in batch().items() if name != "score"}
  with pytest.raises(UserError, match="the data has no n-grams: expected statistic"):
    make().loss(Variables(params()), plain, STEP)
  rows = {name: np.asarray(column) for name, column in batch().items()}
  given = dict(rows=rows, vocabulary=source().vocabulary, training=rows)
  with pytest.raises(UserError, match="bigrams=0, trigrams=0: expected at least 0, an"):
    ngrams(**given, bigrams=0, trigrams=0)
  with pytest.raises(UserError, match="longest=1: expected at least 2"):
    ngrams(**given, longest=1)
