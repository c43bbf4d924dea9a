"""PMLM: all shares alike, and texts in any order, against enumeration of a toy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax import decoding
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, pmlm
from maskjax.systems.text.pmlm import Pmlm

KEY = jax.random.key(3)
# A row of a first token, four words and a last token; words are of the tokens 4 to 6.
WORDS, POSITIONS = (4, 5, 6), (1, 2, 3, 4)
TOY = pmlm(
  vocab_size=7,
  length=6,
  encoder=dict(width=8, depth=1, heads=2),
  replaced=(1.0, 0.0),
)


def without_mechanism(monkeypatch):
  """Masks as many tokens in each step, as BERT does."""
  monkeypatch.setattr(Pmlm, "prior_mask", Pmlm.mask)


def toys(words):
  """A batch of rows with these words, int [B, 4]."""
  words = np.atleast_2d(words)
  row = np.pad(words, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 2)))
  positions = np.broadcast_to(np.arange(6), row.shape)
  return {
    "token": jnp.asarray(row, jnp.int32),
    "segment": jnp.ones(row.shape, jnp.int32),
    "position": jnp.asarray(positions, jnp.int32),
    "word": jnp.where((positions > 0) & (positions < 5), positions, -1),
    "index": jnp.arange(len(row)),
  }


PARAMS = jax.jit(TOY.init)(KEY, toys([4, 5, 6, 4])).params
PARAMS = jax.tree.map(jnp.asarray, shaken(PARAMS))
EVERY = np.array(list(itertools.product(WORDS, repeat=4)))  # 81 texts
ORDERS = np.array(list(itertools.permutations(POSITIONS)))  # 24 orders


@jax.jit
def fill(tokens, ids):
  text = TOY.rows(toys(np.zeros((len(tokens), 4))))
  return TOY.model.apply({"params": PARAMS}, text.with_tokens(tokens), ids)


HOW = dict(mask_id=3, never=(0, 1, 2, 3))


@functools.cache
def likelihoods():
  """Of each text in each order: float [24, 81]."""
  token = toys(EVERY)["token"]
  score = jax.jit(lambda order: decoding.log_likelihood(fill, token, order, **HOW))
  return np.stack([score(np.tile(order, (81, 1))) for order in ORDERS])


def test_the_likelihood_is_a_distribution_over_all_texts_in_each_order():
  total = np.exp(likelihoods().astype(np.float64)).sum(axis=1)
  np.testing.assert_allclose(total, 1, rtol=1e-5)
  # It is another one in each order, since nothing ties their conditionals together.
  assert np.ptp(likelihoods(), axis=0).max() > 1e-3


def test_the_likelihood_is_the_product_along_the_order():
  """By one pass of the network for each token, with masks written by hand."""
  for number, words in ((0, 7), (13, 40), (23, 80)):
    tokens = np.asarray(toys(EVERY[words])["token"])
    seen, expected = tokens.copy(), 0.0
    seen[:, list(POSITIONS)] = 3
    for position in ORDERS[number]:
      logits = np.asarray(fill(jnp.asarray(seen), jnp.array([[position]])))[0, 0, 4:]
      likely = np.exp(np.float64(logits))
      expected += np.log(likely[tokens[0, position] - 4] / likely.sum())
      seen[0, position] = tokens[0, position]
    assert_close(likelihoods()[number, words], expected)


def test_texts_are_generated_as_often_as_they_are_likely():
  order = ORDERS[10]
  count = 40_000
  tokens = np.tile(np.asarray(toys(EVERY[0])["token"]), (count, 1))
  write = jax.jit(lambda key: decoding.generate(key, fill, tokens, at, **HOW))
  at = np.tile(order, (count, 1))
  found = np.asarray(write(KEY))
  assert (found[:, 0] == 1).all() and (found[:, 5] == 2).all()
  digits = (found[:, 1:5] - 4) @ np.array([27, 9, 3, 1])
  share = np.bincount(digits, minlength=81) / count
  likely = np.exp(likelihoods()[10].astype(np.float64))
  assert np.abs(share - likely).max() < 5 * np.sqrt(likely.max() / count)
  assert 0.5 * np.abs(share - likely).sum() < 0.04
  best = decoding.generate(KEY, fill, tokens[:1], at[:1], temperature=0.0, **HOW)
  assert set(np.asarray(best)[0, 1:5].tolist()) <= set(WORDS)


def test_what_is_not_in_the_order_is_given():
  tokens, order = toys([4, 5, 6, 4])["token"], jnp.array([[3, 1]])
  found = decoding.generate(KEY, fill, tokens, order, **HOW)
  assert found[0, jnp.array([0, 2, 4, 5])].tolist() == [1, 5, 4, 2]
  # The rest's distribution, given that, sums to one as well.
  rows = EVERY[(EVERY[:, 1] == 5) & (EVERY[:, 3] == 4)]
  at = jnp.tile(order, (9, 1))
  scores = decoding.log_likelihood(fill, toys(rows)["token"], at, **HOW)
  np.testing.assert_allclose(np.exp(scores).sum(), 1, rtol=1e-5)


def test_the_loss_is_that_over_all_orders():
  """The mean over all masks by the prior, and over all orders, of the same text."""
  words = np.array([6, 4, 4, 5])
  masks = [m for m in itertools.product([False, True], repeat=4) if any(m)]
  masked = jnp.asarray(np.pad(np.array(masks), ((0, 0), (1, 1))))
  rows = toys(np.tile(words, (15, 1)))
  mask = Mask.at_most(masked, num_masked=6, spare=jnp.zeros((15, 6), bool))
  expected = (
    -decoding.log_likelihood(
      fill, toys(np.tile(words, (24, 1)))["token"], jnp.asarray(ORDERS), mask_id=3
    ).mean()
    / 4
  )
  # Each number of masked tokens is equally likely, and each mask of that number.
  sizes = masked.sum(axis=1)
  prior = np.array([1 / (4 * np.bincount(sizes)[n]) for n in np.asarray(sizes)])

  def one(masked, row):
    mask = Mask.at_most(masked[None], num_masked=6, spare=jnp.zeros((1, 6), bool))
    row = {name: column[None] for name, column in row.items()}
    text = TOY.masking.with_mask_tokens(row, mask)
    return TOY.loss_of_mask(Variables(PARAMS), row, mask, text).value()

  losses = jax.jit(jax.vmap(one))(masked, rows)
  assert_close(losses @ prior, expected)
  # Rows count alike, whatever they mask; BERT's loss would weigh them by that.
  text = TOY.masking.with_mask_tokens(rows, mask)
  together = TOY.loss_of_mask(Variables(PARAMS), rows, mask, text)
  assert_close(together.value(), losses.mean())
  assert abs(losses.mean() - (losses @ sizes) / sizes.sum()) > 1e-4


def test_each_number_of_masked_words_is_equally_likely():
  rows = batch(count=3)
  for highest in (1.0, 0.5):
    objective = pmlm(vocab_size=300, length=32, encoder="Ti", highest=highest)
    draw = jax.jit(
      lambda key, o=objective: o.prior_mask(rows, Step(key)).masked.sum(axis=1)
    )
    counts = np.stack([draw(key) for key in jax.random.split(KEY, 600)])
    words = np.asarray(rows["word"] >= 0).sum(axis=1)
    for found, number in zip(counts.T, words, strict=True):
      most = round(highest * number)
      assert found.min() >= 1 and found.max() <= most
      share = np.bincount(found, minlength=most + 1)[1:] / 600
      assert np.abs(share - 1 / most).max() < 5 * np.sqrt(1 / most / 600)
  # BERT masks as many tokens of a row each time.
  plain = bert(vocab_size=300, length=32, encoder="Ti", mask_ratio=0.5)
  counts = {
    int(plain.mask(rows, Step(key)).masked[0].sum()) for key in jax.random.split(KEY)
  }
  assert len(counts) == 1


SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))
ROWS = batch(count=3)


@functools.cache
def small_params():
  params = jax.jit(pmlm(**SHAPE).init)(KEY, ROWS).params
  return jax.tree.map(jnp.asarray, shaken(params))


def test_the_loss_is_of_any_number_of_tokens():
  """Each step masks another number; the two means weigh rows by it or not."""
  objective = pmlm(**SHAPE, mean="tokens")
  variables = Variables(small_params())
  steps = jax.random.split(KEY, 40)
  loss = jax.jit(lambda key: objective.loss(variables, ROWS, Step(key)))
  words = int((ROWS["word"] >= 0).sum())
  weights = np.array([loss(key).weight for key in steps])
  assert weights.min() < 0.3 * words < 0.7 * words < weights.max()
  # The mean is half of the words: of 40 steps it errs by some 4 % of them.
  assert abs(weights.mean() - words / 2) < 0.12 * words
  by_rows = pmlm(**SHAPE)
  apart = jax.jit(lambda key: by_rows.loss(variables, ROWS, Step(key)))(KEY)
  counts = np.asarray(by_rows.prior_mask(ROWS, Step(KEY)).masked).sum(axis=1)
  assert apart.weight == 3 and loss(KEY).weight == counts.sum()
  assert abs(apart.value() - loss(KEY).value()) > 1e-4


def test_relative_positions_of_the_equations():
  """Sines and cosines of distances, added to keys and values; no other positions."""
  objective = pmlm(**{**SHAPE, "encoder": {**SHAPE["encoder"], "positions": "waves"}})
  params = jax.tree.map(jnp.asarray, shaken(jax.jit(objective.init)(KEY, ROWS).params))
  assert "positions" not in params["encoder"]
  found = jax.jit(objective.features)(Variables(params), ROWS)
  tree = reference.tree(params["encoder"])
  for i in range(3):
    expected = reference.encode(tree, row(ROWS, i), objective.model.encoder)
    filled = np.asarray(ROWS["segment"][i]) > 0
    assert_close(found[i][filled], expected[filled])


@pytest.mark.parametrize("highest", [0.0, 1.5])
def test_mistakes(highest):
  with pytest.raises(UserError, match=f"highest={highest}: expected a share above 0"):
    pmlm(vocab_size=300, highest=highest)
  with pytest.raises(UserError, match="mean='row': did you mean 'rows'"):
    pmlm(vocab_size=300, mean="row")
