"""MSLM: terms are masked whole, and weigh more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.text.rows import batch, source

from maskjax.data import statistics
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import mslm
from maskjax.systems.text.mslm import kind_weights
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


def test_training_counts_what_is_hidden():
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


def test_terms_are_hidden_whole():
  rows = marked()
  draw = jax.jit(jax.vmap(lambda key: OBJECTIVE.mask(rows, Step(key)).masked))
  masked = np.asarray(draw(jax.random.split(KEY, 50)))
  number, checked = marked()["score"], 0
  for row in range(8):
    for term in np.unique(number[row][number[row] > 0]):
      of_term = masked[:, row, number[row] == term]
      assert (of_term.all(axis=1) == of_term.any(axis=1)).all()
      checked += of_term.shape[1] > 1 and of_term.any()
  assert checked > 3


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
