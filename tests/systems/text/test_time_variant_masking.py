"""Time-variant masking: the ratio falls, and classes that are hard are masked more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import batch, source

from maskjax.data import statistics
from maskjax.errors import UserError
from maskjax.masking.units import number_words
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, time_variant_masking
from maskjax.systems.text import time_variant_masking as system
from maskjax.systems.text.time_variant_masking import (
  by_class,
  class_weights,
  decayed,
)
from maskjax.tokens import Text

KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))


def without_mechanism(monkeypatch):
  """Words of all classes are masked alike, whatever their errors are."""
  monkeypatch.setattr(system, "class_weights", lambda errors, sharpness: 0 * errors + 1)


def make(**options):
  return time_variant_masking(**{**SHAPE, **options})


def at(step, key=KEY):
  return Step(key, jnp.int32(step), num_steps=10)


OBJECTIVE = make()
LOSS = jax.jit(OBJECTIVE.loss)


@functools.cache
def tagged():
  """A batch whose scores are the classes of its words."""
  rows = {name: np.asarray(column) for name, column in batch(count=4).items()}
  index = rows.pop("index")
  scores = statistics.word_classes(rows=rows, vocabulary=source().vocabulary)
  return {**rows, "index": index, "score": scores}


@functools.cache
def params():
  return jax.jit(OBJECTIVE.init)(KEY, tagged()).params


@pytest.mark.parametrize(
  ("decay", "expected"),
  [("cosine", (0.32, 0.17, 0.02)), ("line", (0.3, 0.15, 0)), ("none", (0.15,) * 3)],
)
def test_the_ratio_by_the_papers_formula(decay, expected):
  found = [decayed(decay, 0.15, t) for t in (0.0, 0.5, 1.0)]
  np.testing.assert_allclose(found, expected, atol=1e-7)
  objective = make(decay=decay, num_classes=0)
  length = np.asarray(tagged()["segment"] > 0).sum(axis=1)
  for step, ratio in zip((0, 5, 10, 50), [*expected, expected[-1]], strict=True):
    mask = objective.scheduled_mask(Variables(params()), tagged(), at(step))
    counts = np.maximum(np.round(np.float32(ratio) * length), 1)
    assert abs(np.asarray(mask.masked).sum(axis=1) - counts).max() <= (step > 5)
  np.testing.assert_allclose(objective.masking.ratio, expected[0], rtol=1e-6)


def test_weights_by_hand():
  errors = np.random.default_rng(0).normal(3, 1, 17).astype(np.float32)
  above = (errors - errors.mean()) / errors.std(ddof=1)
  expected = 1 / (1 + np.exp(-2 * above))
  np.testing.assert_allclose(class_weights(jnp.array(errors), 2.0), expected, rtol=1e-5)


def test_a_step_masks_whole_words_and_fewer_later():
  state = Variables(params(), {"errors": jnp.zeros(17)})
  weights = [float(LOSS(state, tagged(), at(step)).weight) for step in (0, 5, 10)]
  filled = (tagged()["segment"] > 0).sum()
  assert weights[0] > weights[1] > weights[2] > 0
  assert 0.2 * filled < weights[0] <= 0.33 * filled, weights


def sampled(weights, count=6, number=0):
  text = jax.tree.map(lambda column: jnp.asarray(column)[number], Text.of(tagged()))
  draw = jax.jit(
    jax.vmap(lambda key: by_class(key, text, jnp.int32(count), weights=weights))
  )
  return text, np.asarray(draw(jax.random.split(KEY, 1500)))


@pytest.mark.parametrize(("of", "size"), [("words", 1), ("tokens", 5)])
def test_hard_classes_are_masked_more_often(of, size):
  """What is masked alone, as often as the weights of the classes demand."""
  positions = jnp.arange(400)
  text = Text(
    token=positions,
    segment=jnp.ones(400, jnp.int32),
    position=positions,
    word=positions // size,
    score=(positions % 3 == 0).astype(jnp.float32),
  )
  draw = jax.jit(
    lambda key: by_class(key, text, 20, weights=jnp.array([0.2, 0.9]), of=of)
  )
  masked = np.asarray(jax.vmap(draw)(jax.random.split(KEY, 500)))
  assert (masked.sum(axis=1) == 20).all()
  rates = [masked[:, np.asarray(text.score) == c].mean() for c in (0, 1)]
  # Of 10,000 masked tokens some 3,100 are of the class with the lower weight: the ratio
  # errs by 2.2 %, of which this is four and a half.
  np.testing.assert_allclose(rates[1] / rates[0], 4.5, rtol=0.1)


def test_words_of_classes_are_masked_whole():
  text, masked = sampled(jnp.where(jnp.arange(17) == 16, 0.9, 0.2))
  units, is_word = np.asarray(number_words(text)), np.asarray(text.is_word)
  for unit in range(units.max() + 1):
    of_unit = masked[:, units == unit]
    assert (of_unit.all(axis=1) == of_unit.any(axis=1)).all()
  easy = is_word & (np.asarray(text.score) != 16)
  text, masked = sampled(jnp.ones(17))
  assert (masked.sum(axis=1) <= 6).all() and masked.sum(axis=1).mean() > 4.5
  _, never = sampled(jnp.where(jnp.arange(17) == 16, 0.0, 1.0), count=32)
  assert (never == easy).all()


def test_errors_of_the_classes_are_followed():
  extra = {"errors": jnp.full(17, 2.0)}
  state = Variables(params(), extra)
  sums = LOSS(state, tagged(), at(0)).sums
  weights = class_weights(extra["errors"], 2.0)
  sampler = functools.partial(by_class, weights=weights)
  mask = OBJECTIVE.masking.draw(
    tagged(), KEY, ratio=0.32, highest=0.32, sampler=sampler
  )
  text = OBJECTIVE.masking.replace(tagged(), mask, KEY)
  logits = np.asarray(
    jax.jit(OBJECTIVE.predict)(Variables(params()), text, mask), np.float64
  )
  likely = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  ids, where = np.asarray(mask.masked_ids), np.asarray(mask.is_masked)
  tokens, classes = (
    np.take_along_axis(tagged()[name], ids, axis=1) for name in ("token", "score")
  )
  errors = -np.log(np.take_along_axis(likely, tokens[..., None], -1)[..., 0])
  expected = np.full(17, 2.0)
  for c in range(17):
    of_class = where & (classes == c)
    assert sums["counts"][c] == of_class.sum()
    if of_class.any():
      expected[c] = 0.999 * 2 + 0.001 * errors[of_class].mean()
  assert len(set(expected)) > 3
  found = OBJECTIVE.update(state, tagged(), at(0), sums).extra
  np.testing.assert_allclose(found["errors"], expected, rtol=1e-6)


def test_the_loss_masks_the_classes_with_errors():
  errors = jnp.zeros(17).at[16].set(50.0)
  counts = [
    LOSS(Variables(params(), {"errors": e}), tagged(), at(5)).sums["counts"][16]
    for e in (errors, -errors)
  ]
  assert counts[0] > 1.5 * counts[1]


def test_no_classes_and_no_decay():
  plain = make(num_classes=0, decay="none")
  assert not plain.rows.needs_score and "score" not in plain.batch_shapes(2)
  assert OBJECTIVE.rows.needs_score and "score" in OBJECTIVE.batch_shapes(2)
  rows = {name: column for name, column in tagged().items() if name != "score"}
  # Without both, it is BERT's objective.
  state = Variables(params())
  assert plain.update(state, rows, at(0), {}) is state
  found = jax.jit(plain.loss)(state, rows, at(7)).value()
  expected = jax.jit(bert(**SHAPE).loss)(
    Variables(params(), ()), rows, Step(KEY)
  ).value()
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(decay="cosin"), "did you mean 'cosine'"),
    (dict(num_classes=1), "num_classes=1: expected 2 or more, or 0 for none"),
    (dict(momentum=1.0), "momentum=1.0: expected at least 0 and less than 1"),
    (dict(of="letters"), "of='letters': expected 'words' or 'tokens'"),
    (dict(mask_ratio=0.5), "mask_ratio=0.5: .* masks 1.02 at first"),
    (dict(mask_ratio=-0.1, decay="none"), "mask_ratio=-0.1: expected a number above 0"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)


def test_rows_without_scores():
  rows = {name: column for name, column in tagged().items() if name != "score"}
  with pytest.raises(UserError, match="no 'score': expected data.train.statistic"):
    OBJECTIVE.init(KEY, rows)
