"""Samplers that read scores."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import batch, row

from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.masking.units import number_words

BATCH = batch(count=4)
KEYS = jax.random.split(jax.random.key(0), 2000)
RNG = np.random.default_rng(0)


def with_scores(scores, number=0):
  column = jnp.tile(jnp.asarray(scores, jnp.float32), (4, 1))
  return row({**BATCH, "score": column}, number)


def draw(sampler, text, count, **options):
  one = jax.jit(jax.vmap(lambda key: sampler(key, text, jnp.int32(count), **options)))
  return np.asarray(one(KEYS))


def test_each_token_is_hidden_at_its_rate():
  rates = RNG.uniform(0, 0.6, 32)
  text = with_scores(rates)
  is_word = np.asarray(text.is_word)
  masked = draw(words.by_rate, text, 32)
  std = np.sqrt(rates * (1 - rates) / len(KEYS))
  assert (abs(masked.mean(axis=0) - rates) < 5 * std + 1e-9)[is_word].all()
  assert not masked[:, ~is_word].any()
  # One by one: their number is that of independent draws. A variance of 2,000 of them
  # errs by a root of 2 / 2000, 3 %, of which this is five.
  spread = (rates * (1 - rates))[is_word].sum()
  np.testing.assert_allclose(masked.sum(axis=1).var(), spread, rtol=0.15)
  capped = draw(words.by_rate, text, 5)
  assert capped.sum(axis=1).max() == 5 and not (capped & ~masked).any()


def test_likeness_weighs_tokens_by_the_rank_of_their_word():
  """The first token drawn, against the weights by hand."""
  scores = np.zeros(32)
  units = np.asarray(number_words(with_scores(scores)))
  count = units.max() + 1
  of_unit = RNG.permutation(count) / count - 0.5
  scores = np.where(units >= 0, of_unit[units], 9.0)
  text = with_scores(scores)
  masked = draw(words.by_similarity, text, 1)
  assert (masked.sum(axis=1) == 1).all()
  rank = 1 + (of_unit[:, None] > of_unit).sum(axis=1)
  weights = np.where(units >= 0, rank[units], 0)
  expected = weights / weights.sum()
  std = np.sqrt(expected * (1 - expected) / len(KEYS))
  assert (abs(masked.mean(axis=0) - expected) < 4.5 * std + 1e-9).all()
  assert (draw(words.by_similarity, text, 7).sum(axis=1) == 7).all()


def test_terms_are_hidden_whole_beside_other_words():
  number = np.zeros(32)
  is_word = np.asarray(row(BATCH, 0).is_word)
  places = np.flatnonzero(is_word)
  for term, size in enumerate((1, 3, 2, 2), start=1):
    number[places[4 * term : 4 * term + size]] = term
  text = with_scores(number)
  masked = draw(words.terms_and_words, text, 32, term_ratio=0.375, word_ratio=0.2)
  whole = [masked[:, number == term].all(axis=1) for term in (1, 2, 3, 4)]
  touched = [masked[:, number == term].any(axis=1) for term in (1, 2, 3, 4)]
  np.testing.assert_array_equal(whole, touched)
  # One and a half of four terms: as often one as two.
  kinds = collections.Counter(np.sum(whole, axis=0).tolist())
  assert kinds.keys() == {1, 2} and abs(kinds[1] / len(KEYS) - 0.5) < 0.06
  assert abs(np.mean(whole, axis=1) - 0.375).max() < 0.06
  others = is_word & (number == 0)
  counts = masked[:, others].sum(axis=1)
  assert (counts == round(0.2 * others.sum())).all()
  assert not masked[:, ~is_word].any()


def test_terms_that_do_not_fit_are_passed_over():
  is_word = np.asarray(row(BATCH, 0).is_word)
  places = np.flatnonzero(is_word)
  number = np.zeros(32)
  number[places[:3]], number[places[3:5]] = 1, 2
  options = dict(term_ratio=1.0, word_ratio=1.0)
  masked = draw(words.terms_and_words, with_scores(number), 4, **options)
  assert (masked.sum(axis=1) == 4).all()
  terms = {tuple(np.unique(number[mask & (number > 0)])) for mask in masked}
  assert terms == {(1,), (2,)}
  everything = draw(words.terms_and_words, with_scores(number), 32, **options)
  assert (everything == is_word).all()


@pytest.mark.parametrize("sampler", [words.by_rate, words.by_similarity])
def test_rows_without_scores(sampler):
  with pytest.raises(UserError, match="no 'score': expected data.train.statistic"):
    sampler(KEYS[0], row(BATCH, 0), jnp.int32(3))
