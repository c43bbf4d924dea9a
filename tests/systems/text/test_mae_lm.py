"""MAE-LM: the encoder sees no mask token, a decoder with positions of its own does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.late import (
  BATCH,
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
from maskjax.objectives import Variables
from maskjax.systems import mae_lm


def without_mechanism(monkeypatch):
  """The encoder sees mask tokens, all but one."""
  call = LateMaskLM.__call__

  def nearly_all_at_once(self, text, ids, late=None):
    first = jnp.arange(text.token.shape[1]) == ids[:, :1]
    return call(self, text, ids, Mask.exactly(first, num_masked=1))

  monkeypatch.setattr(LateMaskLM, "__call__", nearly_all_at_once)


def test_the_encoder_sees_no_masked_token():
  objective, params = make(mae_lm, mask_ratio=0.5)
  state = Variables(params, ())
  assert lengths_seen(lambda: objective.loss(state, BATCH, STEP)) == [16]


@pytest.mark.parametrize(
  "options",
  [dict(norm_last=True, positions="biased", buckets=4, farthest=9), {}],
)
def test_logits_and_loss_of_the_equations(options):
  """Also with relative positions, which the encoder's blocks alone have."""
  encoder = {**SHAPE["encoder"], **options}
  objective, params = make(mae_lm, encoder=encoder)
  loss = check_logits_and_loss(objective, params)
  # All masked tokens are mask tokens, in training as well.
  late = loss_if_all_enter_late(objective, params)
  assert abs(late.value() - loss.value()) < 1e-4


def test_mask_tokens_do_not_reach_features():
  """The encoder's features of visible tokens are those without any mask token."""
  objective, params = make(mae_lm, mask_ratio=0.5)
  mask = objective.mask(BATCH, STEP)
  table = params["encoder"]["tokens"]
  encoder = {**params["encoder"], "tokens": table.at[3].add(1.0)}
  other = {**params, "encoder": encoder}
  text = objective.masking.with_mask_tokens(BATCH, mask).take(mask.visible_ids)
  masked = objective.masking.with_mask_tokens(BATCH, mask)

  @jax.jit
  def both(params):
    features = objective.model.apply({"params": params}, text, method="encode")
    return features, objective.predict(Variables(params), masked, mask)

  first, second = both(params), both(other)
  np.testing.assert_array_equal(first[0], second[0])
  changed = first[1], second[1]
  assert (changed[0][..., :3] != changed[1][..., :3]).any()


def test_the_decoder_drops_by_a_rate_of_its_own():
  objective, params = make(mae_lm, dropout=0.5, attention_dropout=0.25)
  decoder = objective.model.bind({"params": params}).decoder
  assert (decoder.options.dropout, decoder.options.attention_dropout) == (0, 0)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(decoder_depth=0), "decoder_depth=0: expected at least 1"),
    (dict(decoder_dropout=1.0), "decoder_dropout=1.0: expected at least 0"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    mae_lm(**{**SHAPE, **options})
