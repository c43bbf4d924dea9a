"""DupMAE's decoder, bags and embeddings against their equations in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.documents import two_documents
from helpers.text.rows import batch

from maskjax.errors import UserError
from maskjax.models.text.duplex import decoder_bias
from maskjax.systems import dupmae
from maskjax.tokens import Text

KEY = jax.random.key(5)
BATCH = batch(count=4)
SHAPE = dict(
  vocab_size=300,
  length=32,
  encoder=dict(width=8, depth=1, heads=2, norm_last=False),
  embed_dim=6,
  top_k=10,
)


def make(**options):
  return dupmae(**{**SHAPE, **options})


@functools.cache
def params():
  """Every parameter random."""
  shapes = jax.eval_shape(make().init, KEY, BATCH).params
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape) + 0.1, jnp.float32), shapes
  )


def unseen(text):
  """What each place of the decoder does not see: half, anew at each place."""
  length = text.token.shape[1]
  rng = np.random.default_rng(1)
  drawn = rng.random((length, length)) < 0.5
  return np.tile(drawn, (len(text.token), 1, 1))


def normal(x, p):
  centered = x - x.mean(axis=-1, keepdims=True)
  std = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-12)
  return centered / std * p["scale"] + p["bias"]


def dense(x, p):
  return x @ p["kernel"] + p["bias"]


def decoded(p, code, tokens, masked):
  """One document: its first token's code, and which tokens each place must not see."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
  encoder, block = p["encoder"], p["decoder"]
  n, heads = len(tokens), 2
  places = encoder["positions"][:n] + encoder["types"][0]
  query = normal(code + places, encoder["embed_norm"])
  context = normal(encoder["tokens"][tokens] + places, encoder["embed_norm"])
  context[0] = code
  q, k, v = (
    dense(x, block["attention"][name]).reshape(n, heads, -1)
    for x, name in ((query, "query"), (context, "key"), (context, "value"))
  )
  y = np.zeros_like(v)
  for i in range(n):
    seen = [0] + [j for j in range(1, n) if j != i and not masked[i, j]]
    for head in range(heads):
      scores = k[seen, head] @ q[i, head] / math.sqrt(q.shape[-1])
      weights = np.exp(scores - scores.max())
      y[i, head] = weights / weights.sum() @ v[seen, head]
  y = dense(y.reshape(n, -1), block["attention"]["out"])
  x = normal(query + y, block["attention_norm"])
  y = dense(x, block["mlp"]["up"])
  y = y * np.vectorize(lambda t: 0.5 * (1 + math.erf(t / math.sqrt(2))))(y)
  return normal(x + dense(y, block["mlp"]["down"]), block["mlp_norm"])


@functools.cache
def judged(alone, documents=2):
  objective = make(documents=documents)
  columns, mask, places = two_documents(alone)
  seen, text = objective.with_mask_tokens(columns, mask), Text.of(columns)
  if alone:
    # The same of each document as in the packed row.
    whole = unseen(text)[0]
    masked = np.zeros((2, 32, 32), bool)
    start = 0
    for row, at in places:
      stop = start + at.stop
      masked[row, at, at] = whole[start:stop, start:stop]
      start = stop
  else:
    masked = unseen(text)
  judge = jax.jit(
    lambda p: objective.tasks_under(mask, jnp.asarray(masked), p, seen, columns)
  )
  return judge(params()), masked


def log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_the_loss_is_the_papers():
  """Masked tokens, all words from the decoder, and words once from largest logits."""
  objective = make()
  found, masked = judged(alone=True, documents=1)
  columns, mask, places = two_documents(alone=True)
  model = objective.model.bind({"params": params()})
  codes = model.encode(objective.with_mask_tokens(columns, mask))
  tokens = np.asarray(columns["token"])
  told, whole, bag = 0.0, 0.0, 0.0
  for row, at in places:
    n = at.stop
    rows = tokens[row, at]
    logits = np.asarray(model.tell(codes[row : row + 1]))[0, at]
    at_hidden = np.flatnonzero(np.asarray(mask.masked)[row, at])
    told -= log_softmax(logits)[at_hidden, rows[at_hidden]].sum()
    again = decoded(params(), np.asarray(codes)[row, 0], rows, masked[row, at, at])
    log_p = log_softmax(model.tell(jnp.asarray(again, jnp.float32)[None])[0])
    errors = -log_p[np.arange(1, n - 1), rows[1:-1]]
    whole += len(at_hidden) * errors.mean()
    log_p = log_softmax(logits[1:].max(axis=0))
    errors = [-log_p[token] for token in set(rows[1:-1])]
    assert len(errors) < n - 2
    bag += len(at_hidden) * np.sum(errors) / (n - 2)
  metrics = found.metrics
  np.testing.assert_allclose(metrics["tokens"].sum, told, rtol=1e-5)
  np.testing.assert_allclose(metrics["decoder"].sum, whole, rtol=1e-5)
  np.testing.assert_allclose(metrics["bag"].sum, bag, rtol=1e-5)
  np.testing.assert_allclose(found.sum, told + whole + 0.1 * bag, rtol=1e-5)
  assert found.weight == np.asarray(mask.masked).sum()


def test_documents_of_a_packed_row_are_told_from_their_own_first_tokens():
  together, apart = judged(alone=False)[0], judged(alone=True)[0]
  for name in ("tokens", "bag"):
    np.testing.assert_allclose(
      together.metrics[name].sum, apart.metrics[name].sum, rtol=1e-5
    )
  model = make().model.bind({"params": params()})
  out = []
  for alone in (False, True):
    columns, _, places = two_documents(alone)
    text, masked = Text.of(columns), judged(alone)[1]
    found = model.decode(
      model.encode(text), text, decoder_bias(text, jnp.asarray(masked))
    )
    out.append([np.asarray(found)[row, at] for row, at in places])
  for packed, single in zip(*out, strict=True):
    np.testing.assert_allclose(packed, single, rtol=1e-4, atol=1e-5)


def test_a_place_is_told_without_its_own_token_and_other_codes():
  columns, _, _ = two_documents(alone=False)
  text = Text.of(columns)
  model = make().model.bind({"params": params()})
  codes = model.encode(text)
  bias = decoder_bias(text, jnp.zeros((1, 32, 32), bool))
  assert not np.isnan(jax.nn.softmax(bias)).any()
  before = model.decode(codes, text, bias)
  # Place 5 of the first document, and its neighbor.
  other = text.with_tokens(text.token.at[0, 5].add(1))
  after = np.asarray(model.decode(codes, other, bias))
  np.testing.assert_array_equal(before[0, 5], after[0, 5])
  assert (np.asarray(before)[0, 6] != after[0, 6]).any()
  ordinary = codes.at[:, 1:12].add(1).at[:, 13:].add(1)
  np.testing.assert_array_equal(before, model.decode(ordinary, text, bias))
  first = np.asarray(model.decode(codes.at[:, 0].add(1), text, bias))
  assert (np.asarray(before)[0, :12] != first[0, :12]).any(axis=-1).all()
  np.testing.assert_array_equal(np.asarray(before)[0, 12:], first[0, 12:])


def test_places_of_the_decoder_have_masks_of_their_own():
  masked = np.asarray(make(mask="tokens").masked_from(BATCH, KEY))
  words = np.asarray(Text.of(BATCH).is_word)
  filled = np.asarray(BATCH["segment"] > 0).sum(axis=1)
  assert not masked[~np.broadcast_to(words[:, None], masked.shape)].any()
  counts = np.minimum(np.round(0.5 * filled), words.sum(axis=1))
  assert (masked.sum(axis=-1) == counts[:, None]).all()
  assert len(np.unique(masked[0], axis=0)) > 15
  shared = np.asarray(make(mask="tokens", decoder_masks=3).masked_from(BATCH, KEY))
  assert len(np.unique(shared[0], axis=0)) == 3


def test_an_embedding_has_a_first_and_a_sparse_part():
  objective = make()
  found = np.asarray(jax.jit(objective.embed)(params(), BATCH))
  model = objective.model.bind({"params": params()})
  codes = model.encode(Text.of(BATCH))
  first = np.asarray(codes)[:, 0] @ np.asarray(params()["project"]["kernel"])
  np.testing.assert_allclose(found[:, :6], first, rtol=1e-4, atol=1e-5)
  logits = np.asarray(model.tell(codes))
  for row in range(4):
    where = np.asarray(BATCH["segment"])[row] == 1
    where[0] = False
    largest = logits[row, where].max(axis=0)
    kept = np.argsort(-largest)[:10]
    assert set(np.flatnonzero(found[row, 6:])) == set(kept)
    np.testing.assert_allclose(found[row, 6:][kept], largest[kept], rtol=1e-5)


def test_the_projection_waits_for_finetuning():
  objective = make(documents=3)
  fresh, extra = jax.jit(objective.init)(KEY, BATCH)
  kernel = fresh["project"]["kernel"]
  np.testing.assert_allclose(kernel.T @ kernel, np.eye(6), atol=1e-5)
  loss = jax.jit(jax.value_and_grad(lambda p: objective.loss(p, extra, BATCH, KEY).sum))
  value, gradient = loss(fresh)
  assert np.isfinite(value) and all(
    np.isfinite(g).all() for g in jax.tree.leaves(gradient)
  )
  assert (gradient["project"]["kernel"] == 0).all()
  block = gradient["decoder"]
  assert jnp.abs(block["attention"]["query"]["kernel"]).max() > 0
  assert jnp.abs(block["mlp"]["down"]["kernel"]).max() > 0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(decoder_ratio=1.0), "decoder_ratio=1.0: expected a number between 0 and 1"),
    (dict(decoder_masks=0), "decoder_masks=0: expected at least 1"),
    (dict(bag_weight=-0.5), "bag_weight=-0.5: expected at least 0"),
    (dict(embed_dim=9), "embed_dim=9: expected from 1 to 8"),
    (dict(top_k=301), "top_k=301: expected from 1 to 300"),
    (
      dict(encoder=dict(width=8, depth=1, heads=2, embed_width=4)),
      "encoder.embed_width=4: expected encoder.width=8",
    ),
    (
      dict(encoder=dict(kind="deberta-v2", width=8, depth=1, heads=2)),
      "positions='disentangled': expected 'learned' or 'rotary'",
    ),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
