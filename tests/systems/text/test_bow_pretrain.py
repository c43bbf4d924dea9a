"""Bag-of-word prediction: which words a document has, told by its first token."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.documents import two_documents
from helpers.text.rows import batch

from maskjax.errors import UserError
from maskjax.systems import bert, bow_pretrain
from maskjax.targets.bag_of_words import bags
from maskjax.tokens import Text

KEY = jax.random.key(5)
BATCH = batch(count=4)
LENGTHS = (12, 20)
SHAPE = dict(
  vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2, norm_last=False)
)


def make(**options):
  return bow_pretrain(**{**SHAPE, "num_steps": 100, **options})


@functools.cache
def untrained():
  return jax.jit(make().init)(KEY, BATCH)


@functools.cache
def judged(alone, documents=2, weight=0.7):
  objective = make(documents=documents)
  columns, mask, _ = two_documents(alone)
  seen = objective.with_mask_tokens(columns, mask)
  judge = jax.jit(lambda p: objective.tasks_under(mask, p, seen, columns, weight))
  return judge(untrained().params), untrained().params


def test_the_loss_is_the_papers():
  """In NumPy: -1/|bag| sum of log-probabilities of the words, each of them once."""
  found, params = judged(alone=True, documents=1)
  objective = make()
  columns, mask, _ = two_documents(alone=True)
  seen = objective.with_mask_tokens(columns, mask)
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
    at = np.flatnonzero(masked[row])
    total += -log_p[row, at, tokens[row, at]].sum() + 0.7 * len(at) * of_bag
  assert found.weight == masked.sum()
  np.testing.assert_allclose(found.sum, total, rtol=1e-5)


def test_documents_of_a_packed_row_have_bags_of_their_own():
  together, apart = judged(alone=False)[0], judged(alone=True)[0]
  np.testing.assert_allclose(together.sum, apart.sum, rtol=1e-5)
  assert together.weight == apart.weight
  # With fewer bags than documents, the rest tells its masked tokens alone.
  less = judged(alone=False, documents=1)[0]
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
  """Plain masked language modeling asks nothing of its code."""
  objective, plain = make(documents=3), bert(**SHAPE)
  params, extra = untrained()
  same = jax.eval_shape(plain.init, KEY, BATCH).params
  assert jax.tree.structure(params) == jax.tree.structure(same)

  mask = objective.mask(BATCH, KEY)
  seen = objective.with_mask_tokens(BATCH, mask)

  @jax.jit
  @functools.partial(jax.grad, argnums=1)
  def gradients(weight, params):
    return objective.tasks_under(mask, params, seen, BATCH, weight).sum

  def gradient(weight):
    return gradients(weight, params)["encoder"]["positions"][0]

  # Position 0 is that of first tokens alone; attention reaches them either way.
  assert jnp.abs(gradient(1.0) - gradient(0.0)).max() > 1e-3
  told = jax.jit(objective.loss)(params, extra, BATCH, KEY)
  bag = told.metrics["bag"].value()
  assert abs(bag - math.log(300)) < 1
  np.testing.assert_allclose(told.value(), told.metrics["tokens"].value() + bag, 1e-5)


def test_the_weight_of_bags_falls_along_a_cosine():
  objective = make(num_steps=100)
  found = [float(objective.weight(step)) for step in (0, 25, 50, 100, 150)]
  expected = [0.1 + 0.9 * (1 + math.cos(math.pi * s)) / 2 for s in (0, 0.25, 0.5, 1, 1)]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  extra = objective.first_extra()
  assert objective.update_extra(None, extra, 0, {})["step"] == 1


def test_an_embedding_is_that_of_the_first_token():
  objective = make()
  params = judged(alone=True)[1]
  found = objective.embed(params, BATCH)
  assert found.shape == (4, 8)
  np.testing.assert_array_equal(found, objective.features(params, BATCH)[:, 0])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(num_steps=0), "objective.num_steps=0: expected at least 1"),
    (dict(documents=0), "objective.documents=0: expected at least 1"),
    (dict(last_weight=-1.0), "last_weight=-1.0: expected at least 0"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
