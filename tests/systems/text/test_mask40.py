"""mask40: more tokens than BERT masks, and all of them become mask tokens."""

import jax
import numpy as np
from helpers.text.rows import batch

from maskjax import config as configs
from maskjax import objectives, resolve
from maskjax.masking.text_policy import TextMasking
from maskjax.objectives import Step
from maskjax.systems import bert, mask40

BATCH = batch(count=4)
KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))


def without_mechanism(monkeypatch):
  """Masks as many tokens as BERT does."""
  draw = TextMasking.draw

  def fewer(self, batch, key, *, ratio, highest, sampler=None):
    return draw(self, batch, key, ratio=0.15, highest=0.15, sampler=sampler)

  monkeypatch.setattr(TextMasking, "draw", fewer)


def test_the_shipped_rates():
  for objective in (mask40(vocab_size=300), prepared("paper"), prepared("small")):
    masking = objective.masking
    assert (masking.ratio, tuple(masking.replaced)) == (0.4, (1.0, 0.0))


def prepared(setting):
  config = configs.load(f"configs/text/mask40.py:{setting}").objective.to_dict()
  config.pop("vocabulary", None)
  return resolve.build(objectives, {**config, "vocab_size": 300})


def test_the_loss_is_of_two_in_five_tokens():
  objective = mask40(**SHAPE)

  @jax.jit
  def weight(key):  # for which no network has to run
    return objective.loss(objective.init(KEY, BATCH), BATCH, Step(key)).weight

  filled = np.asarray(BATCH["segment"] > 0).sum(axis=1)
  assert weight(KEY) == np.round(0.4 * filled).sum()


def test_two_in_five_tokens_are_masked_and_all_become_mask_tokens():
  objective = mask40(**SHAPE)
  mask = objective.mask(BATCH, Step(KEY))
  masked = np.asarray(mask.masked)
  filled = np.asarray(BATCH["segment"] > 0).sum(axis=1)
  np.testing.assert_array_equal(masked.sum(axis=1), np.round(0.4 * filled))
  tokens = np.asarray(objective.masking.replace(BATCH, mask, KEY).token)
  assert (tokens[masked] == 3).all()
  np.testing.assert_array_equal(tokens[~masked], np.asarray(BATCH["token"])[~masked])


def test_everything_else_is_berts():
  as_bert = mask40(**SHAPE, mask_ratio=0.15, replaced=(0.8, 0.1))
  # And how torch draws BERT, in which its authors wrote it.
  assert as_bert == bert(**SHAPE, initialization="normal")
