"""RTS, C-RTS and SLM against their equations in NumPy."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.rows import REFERENCE, batch
from scipy.stats import chisquare

from maskjax.data.token_vectors import mutual_information, vectors_of
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables, abilities_of
from maskjax.systems import token_substitution
from maskjax.systems.text.token_substitution import clusters as cluster_module
from maskjax.systems.text.token_substitution.clusters import Clusters, confusing
from maskjax.tokens import Text
from maskjax.training import init_state, optimizers, train_step

BATCH = batch(count=4)
TEXT = Text.of(BATCH)
KEY = jax.random.key(5)
SHAPE = dict(
  vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2, norm_last=False)
)
CLUSTERS = dict(
  documents=REFERENCE, tokenizer=dict(documents=REFERENCE, size=300), count=12, width=16
)


def without_mechanism(monkeypatch):
  """Without confusions: C-RTS draws from all clusters alike."""

  def alike(confusions, beta):
    return jnp.zeros(confusions.shape)

  monkeypatch.setattr(cluster_module, "preference", alike)


@functools.cache
def make(task, **options):
  if task == "c_rts":
    options = {"clusters": CLUSTERS, **options}
  return token_substitution(task=task, **{**SHAPE, **options})


@functools.cache
def variables(task):
  return jax.jit(make(task).init)(KEY, BATCH)


def seen(task, ratio=0.15):
  """The mask and the tokens that the network reads in training."""
  objective = make(task, mask_ratio=ratio)
  mask = objective.masking(BATCH, KEY)
  if task == "slm":
    return mask, np.asarray(objective.masking.replace(BATCH, mask, KEY).token)
  text = objective.substituted(
    objective.clusters, variables(task), BATCH, mask, Step(KEY)
  )
  return mask, np.asarray(text.token)


@pytest.mark.parametrize("task", ["rts", "c_rts", "slm"])
def test_tokens_are_substituted_and_none_becomes_a_mask(task):
  mask, tokens = seen(task, ratio=0.5)
  before, masked = np.asarray(BATCH["token"]), np.asarray(mask.masked)
  assert (tokens == before)[~masked].all()
  assert (tokens[masked] > 3).all()
  assert (tokens[masked] != before[masked]).mean() > 0.8
  # Not the same token everywhere.
  assert len(np.unique(tokens[masked])) > 10


def test_slm_predicts_the_originals():
  """The mean of the substituted tokens' cross-entropies, of the rows as they are."""
  objective, params = make("slm"), variables("slm").params
  mask, tokens = seen("slm")
  text = TEXT.with_tokens(jnp.asarray(tokens))
  logits = np.asarray(objective.predict(Variables(params), text, mask), np.float64)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  ids, where = np.asarray(mask.masked_ids), np.asarray(mask.is_masked)
  originals = np.take_along_axis(np.asarray(BATCH["token"]), ids, 1)
  errors = -np.take_along_axis(log_p, originals[..., None], -1)[..., 0]
  found = objective.loss(Variables(params, ()), BATCH, Step(KEY))
  np.testing.assert_allclose(found.value(), errors[where].mean(), rtol=1e-5)


@pytest.mark.parametrize("task", ["rts", "c_rts"])
def test_detection_is_a_binary_cross_entropy_of_all_words(task):
  objective = make(task)
  params, extra = variables(task)
  mask, tokens = seen(task)
  text = TEXT.with_tokens(jnp.asarray(tokens))
  logits = np.asarray(objective.model.apply({"params": params}, text), np.float64)
  p = 1 / (1 + np.exp(-logits))
  other = tokens != np.asarray(BATCH["token"])
  errors = -np.where(other, np.log(p), np.log(1 - p))
  words = np.asarray(TEXT.is_word)
  found = objective.loss(Variables(params, extra), BATCH, Step(KEY))
  assert found.weight == words.sum() > np.asarray(mask.masked).sum()
  np.testing.assert_allclose(found.value(), errors[words].mean(), rtol=1e-5)
  heavy = dataclasses.replace(objective, loss_weight=50.0)
  again = heavy.loss(Variables(params, extra), BATCH, Step(KEY))
  np.testing.assert_allclose(again.value(), 50 * found.value(), rtol=1e-6)
  right = (p > 0.5) == other
  np.testing.assert_allclose(
    found.metrics["found_out"].value(), right[other].mean(), rtol=1e-6
  )
  evaluated = objective.evaluate(Variables(params, extra), BATCH, Step(KEY))
  assert abs(evaluated.value() - math.log(2)) < 0.5


def test_substitutes_come_from_clusters_by_their_confusions():
  """Against the distribution in NumPy: softmax of scaled counts, then uniformly."""
  rng = np.random.default_rng(0)
  tokens, beta = np.arange(4, 24), 2.0
  numbers = np.concatenate([np.arange(4), rng.integers(0, 4, size=16)])
  clusters = Clusters.of(numbers, tokens, size=24)
  confusions = rng.integers(-30, 10, size=(4, 4))
  original = 9
  row = confusions[numbers[original - 4]].astype(float)
  scaled = beta * (row - row.min()) / (row.max() - row.min())
  of_cluster = np.exp(scaled) / np.exp(scaled).sum()
  expected = of_cluster[numbers] / np.bincount(numbers)[numbers]
  drawn = confusing(
    KEY, jnp.full(40_000, original), clusters, jnp.asarray(confusions), beta=beta
  )
  counts = np.bincount(np.asarray(drawn), minlength=24)
  assert counts[:4].sum() == 0
  assert chisquare(counts[4:], 40_000 * expected).pvalue > 0.01
  # The clusters are far from equally likely, as they would be for RTS.
  uniform = np.full(20, 40_000 / 20)
  assert chisquare(counts[4:], uniform).pvalue < 1e-6


def test_confusions_count_what_passed():
  objective = make("c_rts")
  params, extra = variables("c_rts")
  assert (np.asarray(extra["confusions"]) == 1).all()
  _, tokens = seen("c_rts")
  text = TEXT.with_tokens(jnp.asarray(tokens))
  logits = np.asarray(objective.model.apply({"params": params}, text))
  of_token = objective.clusters.of_token
  expected = np.ones_like(extra["confusions"])
  for row, column in np.argwhere(tokens != np.asarray(BATCH["token"])):
    pair = of_token[BATCH["token"][row, column]], of_token[tokens[row, column]]
    expected[pair] += 1 if logits[row, column] <= 0 else -1
  optimizer = optimizers.adamw(learning_rate=1e-3, num_steps=2)
  state = init_state(objective, optimizer, BATCH, KEY)
  found = objective.loss(Variables(state.params, state.extra), BATCH, Step(KEY))
  after = objective.update(state.variables, BATCH, Step(KEY), found.sums).extra
  same = objective.loss(Variables(params, extra), BATCH, Step(KEY)).sums["confusions"]
  np.testing.assert_array_equal(extra["confusions"] + same, expected)
  assert after["confusions"].shape == expected.shape
  step = functools.partial(
    train_step, objective=objective, optimizer=optimizer, key=KEY, num_steps=2
  )
  state, _ = jax.jit(step)(state, BATCH)
  assert (np.asarray(state.extra["confusions"]) != 1).any()
  # RTS keeps nothing.
  assert variables("rts").extra == ()


def test_mutual_information_by_hand():
  texts = [np.array([0, 1, 0, 2, 1, 0]), np.array([2, 1])]
  counts = np.zeros((4, 4))
  for ids in texts:
    for i, a in enumerate(ids):
      for j, b in enumerate(ids):
        if 0 < abs(i - j) <= 2:
          counts[a, b] += 1
  of_token, total = counts.sum(axis=1), counts.sum()
  with np.errstate(divide="ignore", invalid="ignore"):
    expected = np.log(counts * total / np.outer(of_token, of_token))
  expected = np.nan_to_num(np.maximum(expected, 0))
  found = mutual_information(texts, 4, window=2).toarray()
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_tokens_with_the_same_neighbors_are_alike():
  """0 and 1 stand at the same positions, and so do 2 and 3."""
  rng = np.random.default_rng(0)
  pairs = [(rng.integers(0, 2), rng.integers(4, 8)) for _ in range(200)]
  pairs += [(rng.integers(2, 4), rng.integers(8, 12)) for _ in range(200)]
  vectors = vectors_of([np.array(pair) for pair in pairs], 13, width=4, window=1)
  alike = vectors @ vectors.T
  assert alike[0, 1] > 0.9 and alike[2, 3] > 0.9 and abs(alike[0, 2]) < 0.5
  assert (vectors[12] == 0).all()


def test_clusters_cover_the_vocabulary_and_can_be_read(tmp_path):
  clusters = make("c_rts").clusters
  assert 6 < len(clusters) <= 12 and clusters.sizes.min() > 0
  np.testing.assert_array_equal(np.sort(clusters.members), np.arange(4, 300))
  for number, (start, size) in enumerate(
    zip(clusters.starts, clusters.sizes, strict=True)
  ):
    members = clusters.members[start : start + size]
    assert (clusters.of_token[members] == number).all()
  path = str(tmp_path / "clusters.npy")
  np.save(path, clusters.of_token)
  again = make("c_rts", clusters=path).clusters
  np.testing.assert_array_equal(again.of_token, clusters.of_token)
  np.save(path, clusters.of_token[:-1])
  with pytest.raises(
    UserError, match=r"int32\[299\]: expected an int for each of vocab"
  ):
    token_substitution(task="c_rts", clusters=path, **SHAPE)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(task="crts"), "task='crts': did you mean 'c_rts'"),
    (dict(task="c_rts"), "clusters=None: expected clusters for 'c_rts' alone"),
    (dict(task="rts", clusters="a.npy"), "expected clusters for 'c_rts' alone"),
    (dict(task="c_rts", clusters="no/such.npy"), "expected a file of numpy.save"),
    (dict(task="c_rts", clusters={**CLUSTERS, "count": 500}), "clusters.count=500"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    token_substitution(**SHAPE, **options)


def test_confusions_change_the_loss():
  """C-RTS draws from the clusters that passed before; RTS does not."""
  objective, (params, extra) = make("c_rts", mask_ratio=0.5), variables("c_rts")
  count = len(objective.clusters)
  passed = jnp.zeros((count, count), jnp.int32).at[:, 0].set(10**6)
  strong = make("c_rts", mask_ratio=0.5, beta=50.0)
  mask, of_token = strong.masking(BATCH, KEY), strong.clusters.of_token
  state = Variables(params, {"confusions": passed})
  text = strong.substituted(strong.clusters, state, BATCH, mask, Step(KEY))
  drawn = of_token[np.asarray(text.token)[np.asarray(mask.masked)]]
  assert (drawn == 0).all()
  losses = [
    strong.loss(Variables(params, e), BATCH, Step(KEY)).sum
    for e in (state.extra, extra)
  ]
  assert losses[0] != losses[1]


def test_a_discriminator_predicts_no_tokens():
  assert abilities_of(make("rts")).predict is None
  assert abilities_of(make("slm")).predict is not None
