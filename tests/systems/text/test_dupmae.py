"""DupMAE's decoder, bags and embeddings against their equations in NumPy."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.text.documents import two_documents
from helpers.text.rows import batch

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import dupmae
from maskjax.systems.text.dupmae.network import decoder_bias
from maskjax.systems.text.dupmae.objective import DupMae
from maskjax.tokens import Text

KEY = jax.random.key(5)
STEP = Step(KEY)
BATCH = batch(count=4)
SHAPE = dict(
  vocab_size=300,
  length=32,
  encoder=dict(width=8, depth=1, heads=2, norm_last=False),
  embed_dim=6,
  top_k=10,
)


def without_mechanism(monkeypatch):
  """Without the decoder and the bags: masked language modeling is left."""
  whole = DupMae.loss

  def loss(self, variables, batch, step):
    found = whole(self, variables, batch, step)
    return dataclasses.replace(found, sum=found.metrics["tokens"].sum)

  monkeypatch.setattr(DupMae, "loss", loss)


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
  """What each position of the decoder does not see: half, anew at each position."""
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


def decoded(p, first, tokens, masked):
  """One document: its first token's features, and what each position must not see."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
  encoder, block = p["encoder"], p["decoder"]
  n, heads = len(tokens), 2
  positions = encoder["positions"][:n] + encoder["types"][0]
  query = normal(first + positions, encoder["embed_norm"])
  context = normal(encoder["tokens"][tokens] + positions, encoder["embed_norm"])
  context[0] = first
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
def measured(alone, documents=2):
  """The loss of two documents, which the encoder reads with mask tokens alone."""
  objective = make(documents=documents, replaced=(1.0, 0.0))
  columns, mask, found = two_documents(alone)
  text = Text.of(columns)
  if alone:
    # The same of each document as in the packed row.
    whole = unseen(text)[0]
    masked = np.zeros((2, 32, 32), bool)
    start = 0
    for row, at in found:
      stop = start + at.stop
      masked[row, at, at] = whole[start:stop, start:stop]
      start = stop
  else:
    masked = unseen(text)
  loss = jax.jit(objective.loss_under_masks)
  variables = Variables(params())
  return loss(variables, columns, STEP, mask, jnp.asarray(masked)), masked


def log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_the_loss_is_the_papers():
  """Masked tokens, all words from the decoder, and words once from largest logits."""
  objective = make()
  found, masked = measured(alone=True, documents=1)
  columns, mask, documents = two_documents(alone=True)
  model = objective.model.bind({"params": params()})
  features = model.encode(objective.masking.with_mask_tokens(columns, mask))
  tokens = np.asarray(columns["token"])
  of_masked, whole, bag = 0.0, 0.0, 0.0
  for row, at in documents:
    n = at.stop
    rows = tokens[row, at]
    logits = np.asarray(model.token_logits(features[row : row + 1]))[0, at]
    ids = np.flatnonzero(np.asarray(mask.masked)[row, at])
    of_masked -= log_softmax(logits)[ids, rows[ids]].sum()
    again = decoded(params(), np.asarray(features)[row, 0], rows, masked[row, at, at])
    log_p = log_softmax(model.token_logits(jnp.asarray(again, jnp.float32)[None])[0])
    errors = -log_p[np.arange(1, n - 1), rows[1:-1]]
    whole += len(ids) * errors.mean()
    log_p = log_softmax(logits[1:].max(axis=0))
    errors = [-log_p[token] for token in set(rows[1:-1])]
    assert len(errors) < n - 2
    bag += len(ids) * np.sum(errors) / (n - 2)
  metrics = found.metrics
  np.testing.assert_allclose(metrics["tokens"].sum, of_masked, rtol=1e-5)
  np.testing.assert_allclose(metrics["decoder"].sum, whole, rtol=1e-5)
  np.testing.assert_allclose(metrics["bag"].sum, bag, rtol=1e-5)
  np.testing.assert_allclose(found.sum, of_masked + whole + 0.1 * bag, rtol=1e-5)
  assert found.weight == np.asarray(mask.masked).sum()


def test_the_loss_draws_both_masks():
  objective, variables = make(), Variables(params())
  found = jax.jit(objective.loss)(variables, BATCH, STEP)
  masks = objective.mask(BATCH, STEP), objective.decoder_masked(BATCH, STEP)
  expected = jax.jit(objective.loss_under_masks)(variables, BATCH, STEP, *masks)
  np.testing.assert_allclose(found.sum, expected.sum, rtol=1e-6)
  of_masked, whole, bag = (found.metrics[k].sum for k in ("tokens", "decoder", "bag"))
  np.testing.assert_allclose(found.sum, of_masked + whole + 0.1 * bag, rtol=1e-6)


def test_documents_of_a_packed_row_are_decoded_from_their_own_first_tokens():
  together, apart = measured(alone=False)[0], measured(alone=True)[0]
  for name in ("tokens", "bag"):
    np.testing.assert_allclose(
      together.metrics[name].sum, apart.metrics[name].sum, rtol=1e-5
    )
  model = make().model.bind({"params": params()})
  out = []
  for alone in (False, True):
    columns, _, documents = two_documents(alone)
    text, masked = Text.of(columns), measured(alone)[1]
    found = model.decode(
      model.encode(text), text, decoder_bias(text, jnp.asarray(masked))
    )
    out.append([np.asarray(found)[row, at] for row, at in documents])
  for packed, single in zip(*out, strict=True):
    np.testing.assert_allclose(packed, single, rtol=1e-4, atol=1e-5)


def test_a_position_is_decoded_without_its_own_token_and_other_features():
  columns, _, _ = two_documents(alone=False)
  text = Text.of(columns)
  model = make().model.bind({"params": params()})
  features = model.encode(text)
  bias = decoder_bias(text, jnp.zeros((1, 32, 32), bool))
  assert not np.isnan(jax.nn.softmax(bias)).any()
  before = model.decode(features, text, bias)
  # Position 5 of the first document, and its neighbor.
  other = text.with_tokens(text.token.at[0, 5].add(1))
  after = np.asarray(model.decode(features, other, bias))
  np.testing.assert_array_equal(before[0, 5], after[0, 5])
  assert (np.asarray(before)[0, 6] != after[0, 6]).any()
  ordinary = features.at[:, 1:12].add(1).at[:, 13:].add(1)
  np.testing.assert_array_equal(before, model.decode(ordinary, text, bias))
  first = np.asarray(model.decode(features.at[:, 0].add(1), text, bias))
  assert (np.asarray(before)[0, :12] != first[0, :12]).any(axis=-1).all()
  np.testing.assert_array_equal(np.asarray(before)[0, 12:], first[0, 12:])


def test_positions_of_the_decoder_have_masks_of_their_own():
  masked = np.asarray(make(mask="tokens").decoder_masked(BATCH, STEP))
  words = np.asarray(Text.of(BATCH).is_word)
  filled = np.asarray(BATCH["segment"] > 0).sum(axis=1)
  assert not masked[~np.broadcast_to(words[:, None], masked.shape)].any()
  counts = np.minimum(np.round(0.5 * filled), words.sum(axis=1))
  assert (masked.sum(axis=-1) == counts[:, None]).all()
  assert len(np.unique(masked[0], axis=0)) > 15
  shared = np.asarray(make(mask="tokens", decoder_masks=3).decoder_masked(BATCH, STEP))
  assert len(np.unique(shared[0], axis=0)) == 3


def test_an_embedding_has_a_first_and_a_sparse_part():
  objective = make()
  found = np.asarray(jax.jit(objective.embed)(Variables(params()), BATCH))
  model = objective.model.bind({"params": params()})
  features = model.encode(Text.of(BATCH))
  first = np.asarray(features)[:, 0] @ np.asarray(params()["project"]["kernel"])
  np.testing.assert_allclose(found[:, :6], first, rtol=1e-4, atol=1e-5)
  logits = np.asarray(model.token_logits(features))
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
  assert extra == ()
  loss = jax.jit(
    jax.value_and_grad(lambda p: objective.loss(Variables(p), BATCH, STEP).sum)
  )
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
