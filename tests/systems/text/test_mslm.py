"""MSLM: terms are masked whole, all tokens are predicted, and terms weigh more."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import batch, row, source
from helpers.text.scored import BATCH as ROWS
from helpers.text.scored import KEYS, draw, with_scores

from maskjax.data import statistics
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import mslm
from maskjax.systems.text.mslm import (
  Mslm,
  kind_weights,
  masked_terms,
  terms_and_words,
)

KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))
OBJECTIVE = mslm(**SHAPE, term_ratio=0.5, mask_ratio=0.5)
LOSS = jax.jit(lambda *inputs: OBJECTIVE.loss(*inputs))


def without_mechanism(monkeypatch):
  """Without weights: masked tokens are predicted, as BERT does."""

  def loss(self, variables, batch, step):
    found = self.masked_token_loss(variables, batch, step, self.mask(batch, step))
    return dataclasses.replace(found, sums={"masked": jnp.ones(2)})

  monkeypatch.setattr(Mslm, "loss", loss)


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


def drawn_terms(key):
  """Which tokens of the batch are masked as parts of terms."""
  draw = OBJECTIVE.masking.draw
  return draw(marked(), key, ratio=0.5, highest=0.5, sampler=OBJECTIVE.terms).masked


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
  everywhere = jnp.tile(jnp.arange(32), (8, 1))
  logits = jax.jit(OBJECTIVE.model.apply)({"params": params()}, text, everywhere)
  logits = np.asarray(logits, np.float64)
  likely = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  tokens, masked = marked()["token"], np.asarray(mask.masked)
  errors = -np.log(np.take_along_axis(likely, tokens[..., None], -1)[..., 0])
  heavy, light = weights_by_hand(*counts) if sum(counts) else (0.5, 0.5)
  of_terms, total = np.asarray(jax.jit(drawn_terms)(KEY)), 0.0
  for i in range(8):
    weighted = 0.0
    for n in np.flatnonzero(marked()["segment"][i]):
      weight = (heavy if of_terms[i, n] else light) if masked[i, n] else 0.0
      weighted += (1 + weight) * errors[i, n]
    total += (1 + masked[i].sum()) * weighted / 32
  np.testing.assert_allclose(found.sum, total, rtol=1e-5)
  assert found.weight == 8
  kinds = [of_terms.sum(), (masked & ~of_terms).sum()]
  assert min(kinds) > 0
  np.testing.assert_array_equal(found.sums["masked"], kinds)


def test_training_counts_masked_terms():
  extra = jax.eval_shape(OBJECTIVE.init, KEY, marked()).extra
  assert extra["masked"].shape == (2,)
  state, counts = Variables((), {"masked": jnp.zeros(2)}), jnp.array([30.0, 70.0])
  for _ in range(2):
    state = OBJECTIVE.update(state, marked(), Step(KEY), {"masked": counts})
  # Older ones count less.
  assert (state.extra["masked"] < 2 * counts).all()
  np.testing.assert_allclose(state.extra["masked"], 1.999 * counts, rtol=1e-6)


def test_terms_are_masked_whole():
  rows = marked()
  draw = jax.jit(jax.vmap(lambda key: OBJECTIVE.mask(rows, Step(key)).masked))
  keys = jax.random.split(KEY, 50)
  masked = np.asarray(draw(keys))
  of_terms = np.asarray(jax.jit(jax.vmap(drawn_terms))(keys))
  assert (of_terms <= masked).all() and (of_terms < masked).any()
  number, checked = marked()["score"], 0
  for i in range(8):
    for term in np.unique(number[i][number[i] > 0]):
      of_term = of_terms[:, i, number[i] == term]
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
  of_terms = draw(masked_terms, text, 32, ratio=0.7)
  whole = [of_terms[:, number == term].all(axis=1) for term in (1, 2, 3, 4)]
  touched = [of_terms[:, number == term].any(axis=1) for term in (1, 2, 3, 4)]
  np.testing.assert_array_equal(whole, touched)
  # 70 % of four terms are two of them, each as often as the others.
  assert collections.Counter(np.sum(whole, axis=0).tolist()).keys() == {2}
  assert abs(np.mean(whole, axis=1) - 0.5).max() < 0.06
  masked = draw(terms_and_words, text, 32, term_ratio=0.7, word_ratio=0.2)
  assert masked[of_terms].all() and not masked[:, ~is_word].any()
  # The rest, visible terms among them, one by one.
  rest = is_word & ~of_terms
  beside = masked & ~of_terms
  rates = beside.sum(axis=0)[is_word] / rest.sum(axis=0)[is_word]
  assert abs(rates - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / (len(KEYS) / 2))
  assert beside[:, number > 0].any()
  spread = 0.2 * 0.8 * rest.sum(axis=1).mean()
  # The variance of 2,000 draws has a std of 3 %; one draw a row would be far outside.
  np.testing.assert_allclose(beside.sum(axis=1).var(), spread, rtol=0.2)


def test_terms_that_do_not_fit_are_passed_over():
  is_word = np.asarray(row(ROWS, 0).is_word)
  positions = np.flatnonzero(is_word)
  number = np.zeros(32)
  number[positions[:3]], number[positions[3:5]] = 1, 2
  of_terms = draw(masked_terms, with_scores(number), 4, ratio=1.0)
  assert {tuple(np.unique(number[mask])) for mask in of_terms} == {(1,), (2,)}
  options = dict(term_ratio=1.0, word_ratio=1.0)
  masked = draw(terms_and_words, with_scores(number), 4, **options)
  assert (masked.sum(axis=1) == 4).all() and masked[of_terms].all()
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
