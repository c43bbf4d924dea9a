"""What all text systems share: masks, replaced tokens, the held-out number."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import batch, source

from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, mask40

BATCH = batch(count=4)
KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))


def make(name=bert, **options):
  return name(**{**SHAPE, **options})


@pytest.mark.parametrize(("ratio", "expected"), [(0.15, 5), (0.4, 13)])
def test_a_share_of_what_is_no_padding_is_masked(ratio, expected):
  mask = make(mask_ratio=ratio).mask(BATCH, Step(KEY))
  filled = np.asarray(BATCH["segment"] > 0).sum(axis=1)
  assert filled[0] == 32 and filled[-1] < 25
  counts = np.asarray(mask.masked).sum(axis=1)
  assert counts[0] == expected == mask.masked_ids.shape[1]
  np.testing.assert_array_equal(counts, np.round(ratio * filled))
  np.testing.assert_array_equal(mask.is_masked.sum(axis=1), counts)
  # What is not visible any more but not masked is padding.
  spared = ~np.asarray(mask.is_masked)
  at = np.take_along_axis(np.asarray(BATCH["segment"]), np.asarray(mask.masked_ids), 1)
  assert (at[spared] == 0).all()
  restored = mask.restore(
    mask.take_visible(BATCH["token"]), mask.take_masked(BATCH["token"])
  )
  np.testing.assert_array_equal(restored, BATCH["token"])


def test_held_out_text_is_evaluated_alike_for_all():
  """By tokens that are masked at random, and by characters of the text."""
  first, second = make(mask_ratio=0.15), make(mask40, mask="spans")
  params = first.init(KEY, BATCH).params
  found = [
    jax.jit(o.evaluate)(Variables(params, ()), BATCH, Step(KEY))
    for o in (first, second)
  ]
  assert found[0].value() == found[1].value()
  metrics = found[0].metrics
  mask = first.masking.draw(BATCH, KEY, ratio=0.15, highest=0.15, sampler=words.tokens)
  where = np.asarray(mask.is_masked)
  characters = np.asarray(mask.take_masked(BATCH["characters"]))[where].sum()
  bits = float(found[0].sum) / math.log(2)
  assert metrics["bits_per_character"].weight == characters
  np.testing.assert_allclose(
    metrics["bits_per_character"].value(), bits / characters, rtol=1e-5
  )
  # A row that does not count changes nothing but for itself.
  counts = jnp.array([True, True, True, False])
  less = first.evaluate(Variables(params, ()), {**BATCH, "valid": counts}, Step(KEY))
  assert less.weight == found[0].weight - where[-1].sum()


@pytest.mark.parametrize(
  "rate", ["dropout", "attention_dropout", "attention_output_dropout"]
)
def test_dropout_is_for_training_alone(rate):
  objective = make(**{rate: 0.5})
  params = objective.init(KEY, BATCH).params
  losses = [
    float(objective.loss(Variables(params, ()), BATCH, Step(k)).value())
    for k in (KEY, KEY)
  ]
  assert losses[0] == losses[1]
  still = make()
  assert float(still.loss(Variables(params, ()), BATCH, Step(KEY)).value()) != losses[0]
  evaluated = [
    float(o.evaluate(Variables(params, ()), BATCH, Step(KEY)).value())
    for o in (objective, still)
  ]
  assert evaluated[0] == evaluated[1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(mask_ratio=1.0), "mask_ratio=1.0: expected a number between 0 and 1"),
    (dict(replaced=(0.9, 0.2)), "expected two shares"),
    (dict(mask_id=300), "has 300: expected tokens below vocab_size=300"),
    (dict(mask="token"), "did you mean 'tokens'"),
    (dict(encoder="XL"), "no text size 'XL'"),
    (dict(encoder=dict(kind="gpt", size="B")), "encoder.kind='gpt': there are"),
    (dict(encoder=dict(size="B", depht=3)), "did you mean 'depth'|no model option"),
    (dict(encoder=dict(kind="deberta-v2", size="M", buckets=1)), "encoder.buckets=1"),
    (dict(dropout=1.0), "dropout=1.0: expected at least 0 and less than 1"),
    (dict(attention_dropout=-0.1), "attention_dropout=-0.1: expected at least 0 and"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)


def test_rows_and_vocabularies_that_do_not_fit():
  vocabulary = source().vocabulary
  with pytest.raises(UserError, match="rows of 32 tokens: expected at most obj"):
    make(length=16).rows(BATCH)
  with pytest.raises(UserError, match="300 tokens: expected at most objective.vocab_s"):
    make(vocab_size=200).check_vocabulary(vocabulary)
  with pytest.raises(UserError, match="masks by token 3: expected objective.mask_id=1"):
    make(mask_id=1).check_vocabulary(vocabulary)
