"""Bag-of-word prediction: a document's first token predicts which words it has."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.documents import two_documents
from helpers.text.rows import batch

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, bow_pretrain
from maskjax.systems.text.bow_pretrain import BowPretrain
from maskjax.targets.bag_of_words import bags
from maskjax.tokens import Text

KEY = jax.random.key(5)
BATCH = batch(count=4)
LENGTHS = (12, 20)
SHAPE = dict(
  vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2, norm_last=False)
)


# Of `two_documents`, of which the encoder reads mask tokens alone.
SAME = dict(
  mask="helpers.text.documents:every_third", mask_ratio=0.375, replaced=(1.0, 0.0)
)


def at(number):
  """A step of a run of 100."""
  return Step(KEY, number=number, num_steps=100)


def without_mechanism(monkeypatch):
  """Without bags of words: masked language modeling is left."""
  whole = BowPretrain.loss

  def loss(self, variables, batch, step):
    found = whole(self, variables, batch, step)
    return dataclasses.replace(found, sum=found.metrics["tokens"].sum)

  monkeypatch.setattr(BowPretrain, "loss", loss)


def make(**options):
  return bow_pretrain(**{**SHAPE, **options})


@functools.cache
def untrained():
  return jax.jit(make().init)(KEY, BATCH)


@functools.cache
def measured(alone, documents=2, weight=0.7):
  """The loss at the end of a run, where bags have their last weight."""
  objective = make(documents=documents, last_weight=weight, **SAME)
  columns, mask, _ = two_documents(alone)
  drawn = objective.mask(columns, at(100))
  np.testing.assert_array_equal(drawn.masked, mask.masked)
  return jax.jit(objective.loss)(untrained(), columns, at(100))


def test_the_loss_is_the_papers():
  """In NumPy: -1/|bag| sum of log-probabilities of the words, each of them once."""
  found = measured(alone=True, documents=1)
  objective, params = make(), untrained().params
  columns, mask, _ = two_documents(alone=True)
  seen = objective.masking.with_mask_tokens(columns, mask)
  everywhere = jnp.tile(jnp.arange(32), (2, 1))
  logits = jax.jit(objective.model.apply)({"params": params}, seen, everywhere)
  logits = np.asarray(logits, np.float64)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  tokens, masked = np.asarray(columns["token"]), np.asarray(mask.masked)
  total = 0.0
  for row, length in enumerate(LENGTHS):
    bag = set(tokens[row, 1 : length - 1])
    assert len(bag) < length - 2  # some stand there twice
    of_bag = -np.mean([log_p[row, 0, token] for token in bag])
    ids = np.flatnonzero(masked[row])
    total += -log_p[row, ids, tokens[row, ids]].sum() + 0.7 * len(ids) * of_bag
  assert found.weight == masked.sum()
  np.testing.assert_allclose(found.sum, total, rtol=1e-5)


def test_documents_of_a_packed_row_have_bags_of_their_own():
  together, apart = measured(alone=False), measured(alone=True)
  np.testing.assert_allclose(together.sum, apart.sum, rtol=1e-5)
  assert together.weight == apart.weight
  # With fewer bags than documents, the rest has masked tokens alone.
  less = measured(alone=False, documents=1)
  assert less.metrics["tokens"].sum == together.metrics["tokens"].sum
  assert less.metrics["bag"].weight < together.metrics["bag"].weight


def test_bags_have_words_and_no_others():
  text = Text.of(two_documents(alone=False)[0])
  ordinary = jnp.arange(300) > 3
  found = np.asarray(bags(text, ordinary, documents=3))
  for number in range(3):
    inside = (text.segment[0] == number + 1) & (text.word[0] >= 0)
    expected = set(np.asarray(text.token[0])[np.asarray(inside)])
    assert set(np.flatnonzero(found[0, number])) == expected
  assert found[0, 1].any() and not found[0, 2].any() and not found[..., :4].any()


def test_the_bag_teaches_the_first_token():
  """Plain masked language modeling teaches its features nothing."""
  objective, plain = make(documents=3, last_weight=0.0), bert(**SHAPE)
  params = untrained().params
  same = jax.eval_shape(plain.init, KEY, BATCH).params
  assert jax.tree.structure(params) == jax.tree.structure(same)

  assert (objective.bag_weight(at(0)), objective.bag_weight(at(100))) == (1, 0)

  @jax.jit
  @functools.partial(jax.grad, argnums=1)
  def gradients(number, params):
    return objective.loss(Variables(params), BATCH, at(number)).sum

  def gradient(number):
    return gradients(number, params)["encoder"]["positions"][0]

  # Position 0 is that of first tokens alone; attention reaches them either way.
  assert jnp.abs(gradient(0) - gradient(100)).max() > 1e-3
  found = jax.jit(objective.loss)(untrained(), BATCH, at(0))
  bag = found.metrics["bag"].value()
  assert abs(bag - math.log(300)) < 1
  np.testing.assert_allclose(found.value(), found.metrics["tokens"].value() + bag, 1e-5)


def test_the_weight_of_bags_falls_along_a_cosine():
  objective = make()
  found = [float(objective.bag_weight(at(step))) for step in (0, 25, 50, 100, 150)]
  expected = [0.1 + 0.9 * (1 + math.cos(math.pi * s)) / 2 for s in (0, 0.25, 0.5, 1, 1)]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  # And the loss weighs bags so, from the number of the step alone.
  assert untrained().extra == ()
  loss = jax.jit(objective.loss)(untrained(), BATCH, at(25))
  tokens, bag = loss.metrics["tokens"], loss.metrics["bag"]
  np.testing.assert_allclose(loss.sum, tokens.sum + expected[1] * bag.sum, rtol=1e-6)


def test_an_embedding_is_that_of_the_first_token():
  objective = make()
  found = objective.embed(untrained(), BATCH)
  assert found.shape == (4, 8)
  np.testing.assert_array_equal(found, objective.features(untrained(), BATCH)[:, 0])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(documents=0), "objective.documents=0: expected at least 1"),
    (dict(last_weight=-1.0), "last_weight=-1.0: expected at least 0"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
