"""BERT: a share of the tokens is masked, and replaced by three shares."""

import dataclasses

import jax
import numpy as np
from helpers.text.rows import batch

from maskjax.masking.text_policy import TextMasking
from maskjax.objectives import Step
from maskjax.systems import bert

BATCH = batch(count=4)
KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))


def without_mechanism(monkeypatch):
  """All masked tokens become mask tokens."""
  replace = TextMasking.replace

  def by_mask_tokens(self, *args, **kwargs):
    return replace(dataclasses.replace(self, replaced=(1.0, 0.0)), *args, **kwargs)

  monkeypatch.setattr(TextMasking, "replace", by_mask_tokens)


def test_masked_tokens_are_replaced_by_the_shares():
  objective = bert(**SHAPE, mask_ratio=0.5)
  as_mask, drawn, kept = 0, 0, 0
  for key in jax.random.split(KEY, 60):
    mask = objective.mask(BATCH, Step(key))
    tokens = np.asarray(objective.masking.replace(BATCH, mask, key).token)
    masked, before = np.asarray(mask.masked), np.asarray(BATCH["token"])
    assert (tokens == before)[~masked].all()
    as_mask += (tokens[masked] == 3).sum()
    kept += (tokens[masked] == before[masked]).sum()
    other = masked & (tokens != 3) & (tokens != before)
    drawn += other.sum()
    assert (tokens[other] > 3).all()
  total = as_mask + drawn + kept
  assert abs(as_mask / total - 0.8) < 0.03 and abs(drawn / total - 0.1) < 0.02


def test_the_papers_rates():
  masking = bert(**SHAPE).masking
  assert (masking.ratio, masking.replaced) == (0.15, (0.8, 0.1))
