"""3ML: mask tokens enter late, and what is replaced otherwise enters at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.late import (
  BATCH,
  KEY,
  SHAPE,
  STEP,
  check_logits_and_loss,
  lengths_seen,
  loss_if_all_enter_late,
  make,
)

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.text import LateMaskLM
from maskjax.objectives import Step, Variables
from maskjax.systems import three_ml


def without_mechanism(monkeypatch):
  """The encoder sees mask tokens, all but one."""
  call = LateMaskLM.__call__

  def nearly_all_at_once(self, text, ids, late=None):
    first = jnp.arange(text.token.shape[1]) == ids[:, :1]
    return call(self, text, ids, Mask.exactly(first, num_masked=1))

  monkeypatch.setattr(LateMaskLM, "__call__", nearly_all_at_once)


def test_the_encoder_is_shorter_by_the_mask_tokens():
  # Of 32 tokens half are masked, and 13 of these 16 are mask tokens.
  objective, params = make(three_ml)
  state = Variables(params, ())
  assert lengths_seen(lambda: objective.loss(state, BATCH, STEP)) == [32 - 13]
  # The mask of all systems' evaluation has 5 of 32 tokens, and that of features none.
  assert lengths_seen(lambda: objective.evaluate(state, BATCH, STEP)) == [27]
  assert lengths_seen(lambda: objective.features(state, BATCH)) == [32]


@pytest.mark.parametrize("replaced", [(0.8, 0.1), (0.5, 0.5)])
def test_what_is_random_or_stays_is_seen_by_the_encoder(replaced):
  objective, _ = make(three_ml, replaced=replaced)
  drawn = kept = 0
  for key in jax.random.split(KEY, 20):
    mask = objective.mask(BATCH, Step(key))
    text, late = objective.late_tokens(BATCH, mask, Step(key))
    tokens, masked = np.asarray(text.token), np.asarray(mask.masked)
    before = np.asarray(BATCH["token"])
    assert (tokens == before)[~masked].all()
    as_mask = tokens == 3
    np.testing.assert_array_equal(as_mask, late.masked)
    # Exactly the share of each row, as near as whole tokens allow.
    np.testing.assert_array_equal(
      as_mask.sum(axis=1), np.round(replaced[0] * masked.sum(axis=1))
    )
    assert not (np.asarray(late.take_visible(text.token)) == 3).any()
    other = masked & ~as_mask
    drawn += (other & (tokens != before)).sum()
    kept += (other & (tokens == before)).sum()
    assert (tokens[other & (tokens != before)] > 3).all()
  share = replaced[1] / (1 - replaced[0])
  assert abs(drawn / (drawn + kept) - share) < 0.15


@pytest.mark.parametrize("norm_last", [True, False])
def test_logits_and_loss_of_the_equations(norm_last):
  encoder = {**SHAPE["encoder"], "norm_last": norm_last}
  objective, params = make(three_ml, encoder=encoder)
  loss = check_logits_and_loss(objective, params)
  # Tokens that are random or stay are seen in training, and none of them in evaluation.
  late = loss_if_all_enter_late(objective, params)
  assert abs(late.value() - loss.value()) > 1e-4


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2"])
def test_late_tokens_know_where_they_are(kind):
  encoder = dict(kind=kind, width=8, depth=1, heads=2)
  objective, params = make(three_ml, encoder=encoder, replaced=(1.0, 0.0))
  mask = objective.mask(BATCH, Step(KEY))
  found = jax.jit(objective.predict)(
    Variables(params), objective.masking.with_mask_tokens(BATCH, mask), mask
  )
  assert (np.abs(found[0, 0] - found[0, 1]) > 1e-3).any()


def test_the_further_blocks_drop_as_the_encoder_does():
  objective, params = make(three_ml, dropout=0.5, attention_dropout=0.25)
  decoder = objective.model.bind({"params": params}).decoder
  assert (decoder.options.dropout, decoder.options.attention_dropout) == (0.5, 0.25)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(decoder_depth=0), "decoder_depth=0: expected at least 1"),
    (dict(replaced=(0.0, 0.1)), "expected a share of mask tokens above 0"),
    (dict(mask_ratio=0.0), "mask_ratio=0.0: expected a number between"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    three_ml(**{**SHAPE, **options})
