"""MSLM: terms are masked whole, and weigh more."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.text.rows import batch, row, source
from helpers.text.scored import BATCH as ROWS
from helpers.text.scored import KEYS, draw, with_scores

from maskjax.data import statistics
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import mslm
from maskjax.systems.text.mslm import kind_weights, terms_and_words
from maskjax.training import init_state, train_step

KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))
OBJECTIVE = mslm(**SHAPE, term_ratio=0.5, mask_ratio=0.5)
LOSS = jax.jit(OBJECTIVE.loss)


@functools.cache
def marked():
  """A batch whose terms are its longer words."""
  rows = {name: np.asarray(column) for name, column in batch(count=8).items()}
  index = rows.pop("index")
  spell = source().vocabulary.decode
  listed = [word for row in rows["token"] for word in spell(row).split()]
  scores = statistics.terms(
    rows=rows,
    vocabulary=source().vocabulary,
    terms=[word for word in listed if len(word) > 4 and word.isalpha()],
  )
  assert 0.1 < (scores > 0).mean() < 0.8
  return {**rows, "index": index, "score": scores}


@functools.cache
def params():
  return jax.jit(OBJECTIVE.init)(KEY, marked()).params


def weights_by_hand(terms, others):
  """In the order in which the authors' code computes them."""
  share = [1 - n / (terms + others) for n in (terms, others)]
  share[0] = max(0.5, share[1])
  share[1] = min(0.5, share[1])
  return np.exp(share) / np.exp(share).sum()


@pytest.mark.parametrize("counts", [(30, 70), (80, 20), (1, 1), (0, 5)])
def test_weights_by_hand(counts):
  found = kind_weights(jnp.array(counts, jnp.float32))
  np.testing.assert_allclose(found, weights_by_hand(*counts), rtol=1e-5)
  assert found[0] >= found[1]


@pytest.mark.parametrize("counts", [(0, 0), (30, 70)])
def test_the_loss_weighs_either_kind(counts):
  extra = {"masked": jnp.array(counts, jnp.float32)}
  found = LOSS(Variables(params(), extra), marked(), Step(KEY))
  mask = OBJECTIVE.mask(marked(), Step(KEY))
  text = OBJECTIVE.masking.replace(marked(), mask, KEY)
  logits = np.asarray(
    jax.jit(OBJECTIVE.predict)(Variables(params()), text, mask), np.float64
  )
  likely = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  ids, where = np.asarray(mask.masked_ids), np.asarray(mask.is_masked)
  tokens, number = (
    np.take_along_axis(marked()[name], ids, axis=1) for name in ("token", "score")
  )
  errors = -np.log(np.take_along_axis(likely, tokens[..., None], -1)[..., 0])
  heavy, light = weights_by_hand(*counts) if sum(counts) else (0.5, 0.5)
  weights = 1 + np.where(number > 0, heavy, light)
  np.testing.assert_allclose(found.sum, (weights * errors)[where].sum(), rtol=1e-5)
  kinds = [(where & (number > 0)).sum(), (where & (number == 0)).sum()]
  assert min(kinds) > 0 and found.weight == sum(kinds)
  np.testing.assert_array_equal(found.sums["masked"], kinds)


def test_training_counts_masked_terms():
  optimizer = optax.sgd(0.1)
  state = init_state(OBJECTIVE, optimizer, marked(), KEY)
  assert (state.extra["masked"] == 0).all()
  step = jax.jit(
    functools.partial(
      train_step, objective=OBJECTIVE, optimizer=optimizer, key=KEY, num_steps=2
    )
  )
  once, _ = step(state, marked())
  assert (once.extra["masked"] > 0).all()
  twice, _ = step(once, marked())
  assert (twice.extra["masked"] > 1.2 * once.extra["masked"]).all()


def test_terms_are_masked_whole():
  rows = marked()
  draw = jax.jit(jax.vmap(lambda key: OBJECTIVE.mask(rows, Step(key)).masked))
  masked = np.asarray(draw(jax.random.split(KEY, 50)))
  number, checked = marked()["score"], 0
  for i in range(8):
    for term in np.unique(number[i][number[i] > 0]):
      of_term = masked[:, i, number[i] == term]
      assert (of_term.all(axis=1) == of_term.any(axis=1)).all()
      checked += of_term.shape[1] > 1 and of_term.any()
  assert checked > 3


def test_terms_are_masked_whole_beside_other_words():
  number = np.zeros(32)
  is_word = np.asarray(row(ROWS, 0).is_word)
  positions = np.flatnonzero(is_word)
  for term, size in enumerate((1, 3, 2, 2), start=1):
    number[positions[4 * term : 4 * term + size]] = term
  text = with_scores(number)
  masked = draw(terms_and_words, text, 32, term_ratio=0.375, word_ratio=0.2)
  whole = [masked[:, number == term].all(axis=1) for term in (1, 2, 3, 4)]
  touched = [masked[:, number == term].any(axis=1) for term in (1, 2, 3, 4)]
  np.testing.assert_array_equal(whole, touched)
  # One and a half of four terms: as often one as two.
  kinds = collections.Counter(np.sum(whole, axis=0).tolist())
  assert kinds.keys() == {1, 2} and abs(kinds[1] / len(KEYS) - 0.5) < 0.06
  assert abs(np.mean(whole, axis=1) - 0.375).max() < 0.06
  others = is_word & (number == 0)
  counts = masked[:, others].sum(axis=1)
  assert (counts == round(0.2 * others.sum())).all()
  assert not masked[:, ~is_word].any()


def test_terms_that_do_not_fit_are_passed_over():
  is_word = np.asarray(row(ROWS, 0).is_word)
  positions = np.flatnonzero(is_word)
  number = np.zeros(32)
  number[positions[:3]], number[positions[3:5]] = 1, 2
  options = dict(term_ratio=1.0, word_ratio=1.0)
  masked = draw(terms_and_words, with_scores(number), 4, **options)
  assert (masked.sum(axis=1) == 4).all()
  terms = {tuple(np.unique(number[mask & (number > 0)])) for mask in masked}
  assert terms == {(1,), (2,)}
  everything = draw(terms_and_words, with_scores(number), 32, **options)
  assert (everything == is_word).all()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(term_ratio=1.5), "term_ratio=1.5: expected a number from 0 to 1"),
    (dict(word_ratio=-0.1), "word_ratio=-0.1: expected a number from 0 to 1"),
    (dict(mask_ratio=0.0), "mask_ratio=0.0: expected a number between 0 and 1"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    mslm(**SHAPE, **options)


def test_rows_without_scores():
  rows = {name: column for name, column in marked().items() if name != "score"}
  with pytest.raises(UserError, match="no 'score': expected data.train.statistic"):
    OBJECTIVE.init(KEY, rows)
