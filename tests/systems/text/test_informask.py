"""InforMask: what is masked follows the rates of the data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import batch, source
from helpers.text.scored import KEYS, draw, with_scores

from maskjax.data import statistics
from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.objectives import Step, Variables
from maskjax.systems import informask
from maskjax.systems.text.informask import InforMask, by_rate

KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))
OBJECTIVE = informask(**SHAPE)


def without_mechanism(monkeypatch):
  """Without rates: tokens are masked uniformly, as BERT does."""

  def mask(self, batch, step):
    how = dict(ratio=0.15, highest=0.15, sampler=words.tokens)
    return self.masking.draw(batch, step.key, **how)

  monkeypatch.setattr(InforMask, "mask", mask)


@functools.cache
def rated():
  """A batch whose scores are the rates of its whole source."""
  rows = {name: np.asarray(column) for name, column in batch(count=4).items()}
  index = rows.pop("index")
  scores = statistics.informative_rates(
    rows=rows, vocabulary=source().vocabulary, training=source().columns, passes=3
  )
  return {**rows, "index": index, "score": scores}


def test_tokens_are_masked_at_the_rates_of_the_corpus():
  objective = informask(**SHAPE, mask_ratio=0.8)
  rows = rated()
  draw = jax.jit(jax.vmap(lambda key: objective.mask(rows, Step(key)).masked))
  masked = np.asarray(draw(jax.random.split(KEY, 1500)))
  rates = rated()["score"]
  std = np.sqrt(rates * (1 - rates) / len(masked))
  assert (abs(masked.mean(axis=0) - rates) < 5 * std + 1e-9).all()
  # They differ by far more than chance, and are those of no other system.
  assert rates[rates > 0].std() > 3 * std.max()


def test_the_loss_is_of_what_the_rates_mask():
  params = jax.jit(OBJECTIVE.init)(KEY, rated()).params
  loss = jax.jit(lambda *inputs: OBJECTIVE.loss(*inputs))
  found = loss(Variables(params), rated(), Step(KEY))
  mask = OBJECTIVE.mask(rated(), Step(KEY))
  text = OBJECTIVE.masking.replace(rated(), mask, KEY)
  assert (np.asarray(text.token)[np.asarray(mask.masked)] == 3).all()
  everywhere = jnp.tile(jnp.arange(32), (4, 1))
  logits = jax.jit(OBJECTIVE.model.apply)({"params": params}, text, everywhere)
  logits = np.asarray(logits, np.float64)
  likely = np.exp(logits - logits.max(-1, keepdims=True))
  likely /= likely.sum(axis=-1, keepdims=True)
  tokens = rated()["token"]
  errors = -np.log(np.take_along_axis(likely, tokens[..., None], -1)[..., 0])
  where = np.asarray(mask.masked)
  assert found.weight == where.sum() > 0
  np.testing.assert_allclose(found.sum, errors[where].sum(), rtol=1e-5)
  # Or of all tokens, as the authors' code has it.
  whole = informask(**SHAPE, everywhere=True)
  found = jax.jit(whole.loss)(Variables(params), rated(), Step(KEY))
  filled = rated()["segment"] > 0
  assert found.weight == filled.sum() > where.sum()
  np.testing.assert_allclose(found.sum, errors[filled].sum(), rtol=1e-5)
  # Nothing is ever masked where the rates are 0.
  never = {**rated(), "score": np.zeros_like(rated()["score"])}
  assert loss(Variables(params), never, Step(KEY)).weight == 0


def test_rows_without_scores():
  rows = {name: column for name, column in rated().items() if name != "score"}
  with pytest.raises(UserError, match="no 'score': expected data.train.statistic"):
    OBJECTIVE.init(KEY, rows)
  assert OBJECTIVE.batch_shapes(2)["score"].dtype == jnp.float32


def test_each_token_is_masked_at_its_rate():
  rates = np.random.default_rng(0).uniform(0, 0.6, 32)
  text = with_scores(rates)
  is_word = np.asarray(text.is_word)
  masked = draw(by_rate, text, 32)
  std = np.sqrt(rates * (1 - rates) / len(KEYS))
  assert (abs(masked.mean(axis=0) - rates) < 5 * std + 1e-9)[is_word].all()
  assert not masked[:, ~is_word].any()
  # One by one: their number is that of independent draws. A variance of 2,000 of them
  # errs by a root of 2 / 2000, 3 %, of which this is five.
  spread = (rates * (1 - rates))[is_word].sum()
  np.testing.assert_allclose(masked.sum(axis=1).var(), spread, rtol=0.15)
  capped = draw(by_rate, text, 5)
  assert capped.sum(axis=1).max() == 5 and not (capped & ~masked).any()


def test_mistakes():
  with pytest.raises(UserError, match="no 'by_rates' in maskjax.masking.words"):
    informask(**SHAPE, mask="by_rates")
  with pytest.raises(UserError, match="mask_ratio=0: expected a number between"):
    informask(**SHAPE, mask_ratio=0)
