"""Difference-Masking: words like those that set a domain apart are masked."""

import functools

import jax
import numpy as np
import pytest
from helpers.arrays import shaken
from helpers.text.rows import REFERENCE
from helpers.text.scored import KEYS, draw, with_scores

from maskjax.data.text import text
from maskjax.errors import UserError
from maskjax.masking import words as sampling
from maskjax.masking.units import number_words
from maskjax.objectives import Step, Variables
from maskjax.systems import difference_masking
from maskjax.systems.text.difference_masking import DifferenceMasking, by_similarity

KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=64, encoder=dict(width=8, depth=1, heads=2))
OBJECTIVE = difference_masking(**SHAPE)


def without_mechanism(monkeypatch):
  """Without similarities: tokens are masked uniformly, as BERT does."""

  def mask(self, batch, step):
    how = dict(ratio=0.15, highest=0.15, sampler=sampling.tokens)
    return self.masking.draw(batch, step.key, **how)

  monkeypatch.setattr(DifferenceMasking, "mask", mask)


def domain():
  return [f"a cell has a {kind} wall near the {kind}" for kind in ("thin", "thick") * 9]


def general():
  return [line.replace("cell", "house") for line in domain()]


@functools.cache
def rows(anchors=1):
  """Both corpora's rows, by their similarity to the domain's anchors."""
  return text(
    documents=f"{__name__}:domain",
    tokenizer=dict(documents=REFERENCE, size=300),
    length=64,
    statistic=dict(
      name="anchor_similarity",
      training=f"{__name__}:domain",
      reference=f"{__name__}:general",
      anchors=anchors,
    ),
  )


def first(count=4):
  columns = {name: column[:count] for name, column in rows().columns.items()}
  return {**columns, "index": np.arange(count)}


def spelled():
  """The text of the word of each token."""
  source, words = rows(), {}
  columns = {name: column[:4] for name, column in source.columns.items()}
  keys = np.stack([columns["segment"], columns["word"]], axis=-1)
  for r, in_row in enumerate(keys):
    for i, key in enumerate(map(tuple, in_row)):
      same = (in_row == key).all(axis=-1)
      words[r, i] = source.vocabulary.decode(columns["token"][r][same]).strip()
  return np.array([[words[r, i] for i in range(keys.shape[1])] for r in range(4)])


def test_the_anchor_and_similar_words_are_masked_most():
  batch = first()
  draw = jax.jit(jax.vmap(lambda key: OBJECTIVE.mask(batch, Step(key)).masked))
  masked = np.asarray(draw(jax.random.split(KEY, 500))).mean(axis=0)
  words, is_word = spelled(), first()["word"] >= 0
  positions = {word: (words == word) & is_word for word in set(words[is_word])}
  rate = {word: masked[at].mean() for word, at in positions.items()}
  assert max(rate, key=rate.get) == "cell"
  score = {word: first()["score"][at][0] for word, at in positions.items()}
  assert score["cell"] == max(score.values()) > min(score.values())
  assert rate["cell"] > 1.5 * rate[min(score, key=score.get)]
  assert np.corrcoef([rate[w] for w in score], [score[w] for w in score])[0, 1] > 0.6
  filled = (first()["segment"] > 0).sum(axis=1)
  np.testing.assert_allclose(masked.sum(axis=1), np.round(0.15 * filled), rtol=1e-5)


def test_the_loss_is_bert_s_under_these_masks():
  params = jax.jit(OBJECTIVE.init)(KEY, first()).params
  mask = OBJECTIVE.mask(first(), Step(KEY))
  seen = OBJECTIVE.masking.replace(first(), mask, KEY)
  logits = np.asarray(
    jax.jit(OBJECTIVE.predict)(Variables(params), seen, mask), np.float64
  )
  likely = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  tokens = np.take_along_axis(first()["token"], np.asarray(mask.masked_ids), axis=1)
  errors = -np.log(np.take_along_axis(likely, tokens[..., None], -1)[..., 0])
  loss = jax.jit(lambda *inputs: OBJECTIVE.loss(*inputs))
  found = loss(Variables(params, ()), first(), Step(KEY))
  expected = errors[np.asarray(mask.is_masked)].mean()
  np.testing.assert_allclose(found.value(), expected, rtol=1e-5)
  # They follow the scores.
  other = {**first(), "score": -first()["score"]}
  assert loss(Variables(params, ()), other, Step(KEY)).sum != found.sum


def test_classes_are_learned_beside():
  """Their share of the loss; of each text as often as it has masked tokens."""
  objective = difference_masking(**SHAPE, num_classes=3, class_weight=0.25)
  labels = np.array([2, 0, 1, 2])
  batch = {**first(), "label": labels}
  params = shaken(jax.eval_shape(objective.init, KEY, batch).params)
  assert {"encoder", "head"} < params.keys()
  found = jax.jit(objective.loss)(Variables(params), batch, Step(KEY))
  features = np.asarray(objective.features(Variables(params), batch))[:, 0]
  pool, classes = params["pool"], params["classes"]
  hidden = np.tanh(features @ pool["kernel"] + pool["bias"])
  logits = hidden @ classes["kernel"] + classes["bias"]
  errors = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), labels]
  often = np.asarray(objective.mask(batch, Step(KEY)).masked).sum(axis=1)
  plain = OBJECTIVE.loss(
    Variables({name: params[name] for name in ("encoder", "head")}), batch, Step(KEY)
  )
  expected = 0.75 * plain.sum + 0.25 * (errors * often).sum()
  np.testing.assert_allclose(found.sum, expected, rtol=1e-4)
  assert found.weight == plain.weight == often.sum()
  with pytest.raises(UserError, match="the rows have no 'label': expected data.train"):
    objective.loss(Variables(params), first(), Step(KEY))
  assert objective.batch_shapes(2)["label"].shape == (2,)


def test_rows_without_scores():
  batch = {name: column for name, column in first().items() if name != "score"}
  with pytest.raises(UserError, match="no 'score': expected data.train.statistic"):
    OBJECTIVE.init(KEY, batch)


def test_similarity_weighs_tokens_by_the_rank_of_their_word():
  """The first token drawn, against the weights by hand."""
  scores = np.zeros(32)
  units = np.asarray(number_words(with_scores(scores)))
  count = units.max() + 1
  of_unit = np.random.default_rng(0).permutation(count) / count - 0.5
  scores = np.where(units >= 0, of_unit[units], 9.0)
  text = with_scores(scores)
  masked = draw(by_similarity, text, 1)
  assert (masked.sum(axis=1) == 1).all()
  rank = 1 + (of_unit[:, None] > of_unit).sum(axis=1)
  weights = np.where(units >= 0, rank[units], 0)
  expected = weights / weights.sum()
  std = np.sqrt(expected * (1 - expected) / len(KEYS))
  assert (abs(masked.mean(axis=0) - expected) < 4.5 * std + 1e-9).all()
  assert (draw(by_similarity, text, 7).sum(axis=1) == 7).all()


def test_mistakes():
  with pytest.raises(UserError, match="no 'by_similarities' in maskjax.masking.words"):
    difference_masking(**SHAPE, mask="by_similarities")
  with pytest.raises(UserError, match="mask_ratio=1.5: expected a number between"):
    difference_masking(**SHAPE, mask_ratio=1.5)
  with pytest.raises(UserError, match="class_weight=1.0: expected at least 0 and less"):
    difference_masking(**SHAPE, class_weight=1.0)
