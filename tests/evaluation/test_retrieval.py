"""Dense retrieval against a NumPy reference, and embeddings of documents."""

import functools

import jax
import numpy as np
import pytest
from helpers.text.rows import REFERENCE

from maskjax import data, evaluation, sharding, systems
from maskjax.data.text import text
from maskjax.errors import UserError

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SHAPE = dict(
  vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2, norm_last=False)
)


def ranked(queries, passages):
  """All passages for each query, by Python's stable sort."""
  scores = queries.astype(np.float64) @ passages.T.astype(np.float64)
  return [sorted(range(len(passages)), key=lambda i: -row[i]) for row in scores]


# Of whole numbers, so that there are ties, and products are exact.
QUERIES = RNG.integers(-3, 4, size=(23, 5)).astype(np.float32)
PASSAGES = RNG.integers(-3, 4, size=(57, 5)).astype(np.float32)


@pytest.mark.parametrize("chunk", [4, 10, 57, 100])
@pytest.mark.parametrize("top", [1, 12, 57])
def test_passages_are_ranked_by_their_products(chunk, top):
  found = evaluation.retrieve(QUERIES, PASSAGES, top=top, chunk=chunk)
  expected = np.array([order[:top] for order in ranked(QUERIES, PASSAGES)])
  np.testing.assert_array_equal(found, expected)


def test_scores_are_those_of_a_loop():
  relevant = [
    set(RNG.choice(57, size=int(RNG.integers(1, 4)), replace=False)) for _ in QUERIES
  ]
  found = evaluation.retrieval_scores(
    QUERIES, PASSAGES, relevant, recall=(1, 5, 20), mrr=10, chunk=8
  )
  recalls, reciprocal = {1: [], 5: [], 20: []}, []
  for order, those in zip(ranked(QUERIES, PASSAGES), relevant, strict=True):
    for k, values in recalls.items():
      values.append(len(those & set(order[:k])) / len(those))
    ranks = [rank for rank, number in enumerate(order[:10], start=1) if number in those]
    reciprocal.append(1 / ranks[0] if ranks else 0)
  assert 0 < np.mean(reciprocal) < 1
  expected = {f"recall@{k}": np.mean(values) for k, values in recalls.items()}
  assert found == pytest.approx({**expected, "mrr@10": np.mean(reciprocal)}, rel=1e-12)
  # One answer each, as an array.
  first = np.array([min(those) for those in relevant])
  one = evaluation.retrieval_scores(QUERIES, PASSAGES, first, recall=(3,))
  again = evaluation.retrieval_scores(
    QUERIES, PASSAGES, [{int(i)} for i in first], recall=(3,)
  )
  assert one == again


@functools.cache
def rows():
  return text(
    documents=REFERENCE,
    tokenizer=dict(documents=REFERENCE, size=300),
    length=32,
    pack=False,
  )


def pipeline(columns):
  source = data.sources.arrays(**columns)
  return data.Pipeline(source=source, batch_size=8, shuffle=False, repeat=False)


def some(count=21):
  return {name: np.asarray(column[:count]) for name, column in rows().columns.items()}


@pytest.mark.parametrize(
  ("name", "pool", "length"),
  [
    ("bow_pretrain", "own", 8),
    ("dupmae", "own", 306),
    ("bert", "mean", 8),
    ("bert", "first", 8),
  ],
)
def test_documents_are_embedded_in_order(name, pool, length):
  own = {"dupmae": dict(embed_dim=6, top_k=20)}
  objective = getattr(systems, name)(**SHAPE, **own.get(name, {}))
  columns = some()
  batch = {**columns, "index": np.arange(21)}
  variables = jax.jit(objective.init)(KEY, batch)
  mesh = sharding.make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
  embed = evaluation.embedder(objective, pool)
  found = evaluation.document_embeddings(embed, mesh)(variables, pipeline(columns))
  assert found.shape == (21, length) and found.dtype == np.float32
  features = np.asarray(objective.features(variables, batch))
  if pool == "mean":
    inside = columns["segment"] == 1
    expected = np.stack(
      [f[w].mean(axis=0) for f, w in zip(features, inside, strict=True)]
    )
  elif name == "dupmae":
    expected = np.asarray(objective.embed(variables, batch))
  else:
    expected = features[:, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  # Each document is found by itself.
  away = found - found.mean(axis=0)
  away /= np.linalg.norm(away, axis=1, keepdims=True)
  different = np.unique(columns["token"], axis=0).shape[0] == 21
  assert different
  scores = evaluation.retrieval_scores(away, away, np.arange(21), recall=(1,))
  assert scores["recall@1"] == scores["mrr@10"] == 1


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: evaluation.retrieve(QUERIES, PASSAGES[:, :4], top=3),
      r"queries \[23, 5\], passages \[57, 4\]: expected embeddings of the same length",
    ),
    (lambda: evaluation.retrieve(QUERIES, PASSAGES, top=58), "from 1 to the 57 pass"),
    (lambda: evaluation.retrieve(QUERIES, PASSAGES, top=3, chunk=0), "chunk=0: expec"),
    (
      lambda: evaluation.retrieval_scores(QUERIES, PASSAGES, np.arange(22)),
      "relevant has 22 entries: expected one for each of 23 queries",
    ),
    (
      lambda: evaluation.retrieval_scores(QUERIES, PASSAGES, np.arange(35, 58)),
      r"relevant\[22\]=\[57\]: expected passages from 0 to 56",
    ),
    (
      lambda: evaluation.retrieval_scores(QUERIES, PASSAGES, [set()] * 23),
      r"relevant\[0\]=\[\]: expected passages",
    ),
    (
      lambda: evaluation.retrieval_scores(QUERIES, PASSAGES, np.arange(23), mrr=0),
      "mrr=0: expected at least 1",
    ),
    (lambda: evaluation.embedder(None, "cls"), "pool='cls': there are: first, mean"),
    (
      lambda: evaluation.embedder(systems.bert(**SHAPE)),
      "MaskedLanguageModel has no embeddings of its own: expected 'mean' or 'first'",
    ),
  ],
)
def test_mistakes(call, message):
  with pytest.raises(UserError, match=message):
    call()
