"""Masking rate schedules: how much is masked follows the step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.text.rows import batch

from maskjax import schedules
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, masking_rate_schedule
from maskjax.training import init_state, train_step

BATCH = batch(count=4)
KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))


def without_mechanism(monkeypatch):
  """Masks as many tokens throughout as at first."""
  monkeypatch.setattr(schedules, "linear", schedules.constant)


def make(**options):
  return masking_rate_schedule(**{**SHAPE, **options})


OBJECTIVE = make()
LOSS = jax.jit(OBJECTIVE.loss)


@functools.cache
def params():
  return jax.jit(OBJECTIVE.init)(KEY, BATCH).params


def at(step):
  return LOSS(Variables(params()), BATCH, Step(KEY, jnp.int32(step), num_steps=10))


@pytest.mark.parametrize("step", [0, 1, 4, 9, 10, 99])
def test_the_ratio_falls_along_a_line(step):
  filled = np.asarray(BATCH["segment"] > 0).sum(axis=1)
  ratio = 0.3 - 0.15 * min(step / 10, 1)
  expected = np.round(np.float32(ratio) * filled)
  assert at(step).weight == expected.sum()


@pytest.mark.parametrize(("step", "ratio"), [(0, 0.3), (10, 0.15)])
def test_either_end_is_bert_with_that_ratio(step, ratio):
  """The same masks, though the arrays always have room for the most."""
  plain = bert(**SHAPE, mask_ratio=ratio)
  drawn = OBJECTIVE.masking.draw(BATCH, KEY, ratio=ratio, highest=0.3)
  np.testing.assert_array_equal(drawn.masked, plain.mask(BATCH, Step(KEY)).masked)
  assert drawn.masked_ids.shape[1] == 10
  expected = plain.loss(Variables(params(), ()), BATCH, Step(KEY))
  np.testing.assert_allclose(at(step).value(), expected.value(), rtol=1e-5)


def test_training_moves_the_schedule():
  optimizer = optax.sgd(0.1)
  state = init_state(OBJECTIVE, optimizer, BATCH, KEY)
  step = jax.jit(
    functools.partial(
      train_step, objective=OBJECTIVE, optimizer=optimizer, key=KEY, num_steps=4
    )
  )
  weights = []
  for _ in range(4):
    loss = OBJECTIVE.loss(state.variables, BATCH, Step(KEY, state.step, num_steps=4))
    weights.append(float(loss.weight))
    state, _ = step(state, BATCH)
  assert weights == sorted(weights, reverse=True) and weights[0] > 1.3 * weights[-1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(mask_ratio=(0.3, 0.0)), "expected two numbers between 0 and 1"),
    (dict(mask_ratio=(0.3,)), "expected two numbers between 0 and 1"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
