"""Samplers of masked tokens and words."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import batch, row, runs

from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.masking.selection import highest_units
from maskjax.masking.units import number_words
from maskjax.tokens import Text

BATCH = batch(count=6)
KEYS = jax.random.split(jax.random.key(0), 300)


def draw(sampler, number, count, keys=KEYS, **options):
  text = row(BATCH, number)
  one = jax.jit(jax.vmap(lambda key: sampler(key, text, jnp.int32(count), **options)))
  return text, np.asarray(one(keys))


def nothing_more_fits(text, masked, count):
  """Whether every word that is left visible is longer than what may still be masked."""
  units = np.asarray(number_words(text))
  sizes = np.bincount(units[units >= 0])
  return all(
    sizes[unit] > count - mask.sum()
    for mask in masked
    for unit in set(units[~mask & (units >= 0)])
  )


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("sampler", [words.tokens, words.whole_words, words.spans])
def test_the_count_is_kept_and_only_words_are_masked(sampler, number):
  text, masked = draw(sampler, number, 7)
  assert not masked[:, ~np.asarray(text.is_word)].any()
  counts = masked.sum(axis=1)
  room = min(7, int(text.is_word.sum()))
  if sampler is words.whole_words:
    assert (counts <= room).all() and nothing_more_fits(text, masked, 7)
  else:
    assert (counts == room).all()
  everything = draw(sampler, number, 32)[1]
  assert (everything == np.asarray(text.is_word)).all()


def test_tokens_are_equally_likely():
  text, masked = draw(words.tokens, 0, 5)
  likely = masked.mean(axis=0)[np.asarray(text.is_word)]
  expected = 5 / text.is_word.sum()
  assert abs(likely - expected).max() < 5 * np.sqrt(expected / 300)


def test_words_are_masked_whole():
  text, masked = draw(words.whole_words, 1, 9)
  units = np.asarray(number_words(text))
  assert max(collections.Counter(units[units >= 0]).values()) > 1
  for unit in range(units.max() + 1):
    of_unit = masked[:, units == unit]
    assert (of_unit.all(axis=1) == of_unit.any(axis=1)).all()
  assert nothing_more_fits(text, masked, 9)


def test_words_by_hand():
  """A greedy pass over the words in their order."""
  rng = np.random.default_rng(0)
  units = np.array([-1, 0, 0, 1, 2, 2, 2, 3, -1, 4])
  for _ in range(50):
    scores = rng.normal(size=len(units)).astype(np.float32)
    left, expected = int(rng.integers(1, 8)), np.zeros(len(units), bool)
    count = left
    for unit in sorted(range(5), key=lambda u: -scores[u]):
      size = (units == unit).sum()
      if size <= left:
        expected |= units == unit
        left -= size
    found = highest_units(jnp.array(scores), jnp.array(units), count)
    np.testing.assert_array_equal(found, expected)


def test_spans_are_runs_of_words_of_geometric_length():
  """Against SpanBERT's own numbers: a mean of 3.8 words, ten at most."""
  index = jnp.arange(3000)
  text = Text(token=index, segment=1 + index // 1500, position=index, word=index)
  sample = jax.jit(jax.vmap(lambda key: words.spans(key, text, jnp.int32(100))))
  found = [run for masked in np.asarray(sample(KEYS[:150])) for run in runs(masked)]
  lengths = np.array([last - first + 1 for first, last in found])
  likely = 0.2 * 0.8 ** np.arange(10)
  expected = likely / likely.sum() @ np.arange(1, 11)
  assert abs(expected - 3.8) < 0.01 and len(lengths) > 3000
  # Few of them touch, and of each mask one is cut short.
  assert abs(lengths.mean() - expected) < 0.15 and (lengths > 10).mean() < 0.02


def test_spans_of_tokens_are_such_runs_too():
  """The same text in words of five tokens gives the same runs as in words of one."""
  index = jnp.arange(200)
  single = Text(token=index, segment=index * 0 + 1, position=index, word=index)
  fives = dataclasses.replace(single, word=index // 5)
  found = [words.spans(KEYS[0], text, 40, of="tokens") for text in (single, fives)]
  np.testing.assert_array_equal(*found)
  np.testing.assert_array_equal(found[0], words.spans(KEYS[0], single, 40))
  with pytest.raises(UserError, match="of='letters': expected 'words' or 'tok"):
    words.spans(KEYS[0], single, 40, of="letters")


@pytest.mark.parametrize("of", ["words", "tokens"])
def test_spans_end_with_their_document(of):
  text, masked = draw(words.spans, 1, 9, of=of)
  segments = np.asarray(text.segment)
  for mask in masked:
    for first, last in runs(mask):
      # Between two documents stand tokens that are no words.
      assert segments[first] == segments[last]


def test_masks_do_not_depend_on_the_batch():
  _, together = draw(words.spans, 2, 6)
  _, alone = draw(words.spans, 2, 6, keys=KEYS[5:6])
  np.testing.assert_array_equal(together[5], alone[0])
