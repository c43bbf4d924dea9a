"""StructFormer: the tree that distances and heights make, and attention along it."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax.errors import UserError
from maskjax.models import transformer
from maskjax.models.text import encoder as text_encoders
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, structformer
from maskjax.systems.text.structformer import network
from maskjax.systems.text.structformer.dependency import calibrate, head_probabilities

BATCH = batch(count=3)
# The first row's last 12 tokens are another document.
BATCH["segment"] = BATCH["segment"].at[0, 20:].set(2)
BATCH["position"] = BATCH["position"].at[0, 20:].set(jnp.arange(12))
KEY = jax.random.key(3)
STEP = Step(KEY)
BERT = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=2, heads=2))
SHAPE = dict(**BERT, parser_depth=2, conv_size=5)


def without_mechanism(monkeypatch):
  """Without the parser's trees: any token of a document may depend on any other."""

  def unconstrained(distance, height, segment, scale):
    return (segment[:, None] == segment).astype(jnp.float32)

  monkeypatch.setattr(network, "head_probabilities", unconstrained)


def make(**options):
  objective = structformer(**{**SHAPE, **options})
  params = shaken(jax.eval_shape(objective.init, KEY, BATCH).params)
  return objective, Variables(jax.tree.map(jnp.asarray, params))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def margin(distance, height):
  """How far the distances of one document are lowered: every part of it in turn."""
  count, most = len(height), 0.0
  for i in range(count):
    for j in range(i, count):
      sides = [distance[i - 1]] if i else []
      sides += [distance[j]] if j < count - 1 else []
      if sides:
        most = max(most, min(sides) - max(height[i : j + 1]))
  return most


def tree_of(distance, height, scale):
  """Of one document, by the sum over all constituents of each token."""
  count = len(height)
  distance = distance - margin(distance, height)
  found = np.zeros((count, count))

  def reaches(token, ends):
    """How likely a constituent goes over all these distances."""
    over = [sigmoid((height[token] - distance[n]) * scale[0]) for n in ends]
    return min(over, default=1.0)

  for token in range(count):
    for i in range(token + 1):
      begins = reaches(token, range(i, token))
      begins -= reaches(token, range(i - 1, token)) if i else 0.0
      for j in range(token, count):
        ends = reaches(token, range(token, j))
        ends -= reaches(token, range(token, j + 1)) if j < count - 1 else 0.0
        share = reference.softmax(scale[1] * height[i : j + 1])
        found[token, i : j + 1] += begins * ends * share
  np.testing.assert_allclose(found.sum(axis=1), 1)
  return found * (1 - np.eye(count))


@pytest.mark.parametrize("lengths", [(9,), (1, 5, 3), (2, 6)])
def test_trees_are_sums_over_all_constituents(lengths):
  rng = np.random.default_rng(sum(lengths))
  count, scale = sum(lengths), np.array([1.3, 0.7])
  height, distance = rng.normal(size=(2, count))
  height[0] += 40.0  # One document may lie far above the others.
  segment = np.repeat(np.arange(len(lengths)), lengths)
  expected, start = np.zeros((count, count)), 0
  for length in lengths:
    part = slice(start, start + length)
    of_part = distance[start : start + length - 1], height[part]
    expected[part, part] = tree_of(*of_part, scale)
    start += length
  arrays = jnp.float32(distance), jnp.float32(height), jnp.asarray(segment)
  lowered = calibrate(*(array[None] for array in arrays))[0]
  found = head_probabilities(lowered, *arrays[1:], jnp.float32(scale))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  # No part of a document is cut off on both sides from all others.
  ends = np.cumsum(lengths) - 1
  assert (np.asarray(lowered)[ends] > 1e8).all()


def test_a_margin_may_be_that_of_the_batch():
  rng = np.random.default_rng(0)
  height, distance = rng.normal(size=(2, 2, 6))
  distance += 3.0  # so that all documents need a margin
  segment = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]])
  height[1, 4:] -= 100.0  # Padding needs the largest, which does not count.
  documents = [(0, slice(0, 3)), (0, slice(3, 6)), (1, slice(0, 4))]
  margins = [margin(distance[r, s][:-1], height[r, s]) for r, s in documents]
  arrays = jnp.float32(distance), jnp.float32(height), jnp.asarray(segment)
  apart, together = (np.asarray(calibrate(*arrays, shared=s)) for s in (False, True))
  assert 0 < min(margins) < max(margins)
  for (number, part), own in zip(documents, margins, strict=True):
    at = number, slice(part.start, part.stop - 1)
    np.testing.assert_allclose(apart[at], distance[at] - own, rtol=1e-5)
    np.testing.assert_allclose(together[at], distance[at] - max(margins), rtol=1e-5)


def parse(p, tokens, objective):
  """Distances and heights of one document in NumPy."""

  def layer(name, x):
    y = reference.dense(p[name], x)
    centered = y - y.mean(axis=-1, keepdims=True)
    return np.tanh(
      centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5)
    )

  def windows(x, before, after):
    padded = np.pad(x, ((before, after), (0, 0)))
    return np.stack([padded[n : n + before + after + 1].ravel() for n in range(len(x))])

  x, side = tokens, objective.model.conv_size // 2
  for i in range(objective.model.parser_depth):
    x = layer(f"conv_{i}", windows(x, side, side))
  height = reference.dense(p["height"], layer("height_hidden", x))[:, 0]
  pairs = layer("distance_hidden", windows(x, 0, 1))
  return reference.dense(p["distance"], pairs)[:-1, 0], height


def run(params, objective, row):
  """Logits of one row, document by document, in NumPy."""
  encoder, p = objective.model.encoder, reference.tree(params)
  logits, segment = np.zeros((32, 300)), np.asarray(row.segment)
  for number in np.unique(segment):
    one = jax.tree.map(lambda c, n=number: np.asarray(c)[segment == n], row)
    read = p["encoder"]["tokens"][one.token]
    positions = p["encoder"]["positions"][one.position]
    x = read + positions
    if objective.model.context:
      alike = reference.same_document(one)
      leaky = dict(activation=lambda x: np.where(x > 0, x, 0.01 * x))
      x = reference.blocks(p["first"], x, alike, encoder, **leaky)
      read = reference.norm(p["first_norm"], x, encoder.norm_epsilon)
      x = read + positions
    tree = tree_of(*parse(p["parser"], read, objective), np.exp(p["log_scale"]))
    for i, relations in enumerate(reference.softmax(p["relations"])):
      q = p[f"blocks_{i}"]
      y = reference.norm(q["attention_norm"], x, encoder.norm_epsilon)
      parts = []
      for h, (of_heads, of_children) in enumerate(relations):
        part = slice(4 * h, 4 * h + 4)
        query, key, value = (
          reference.dense(q["attention"][name], y)[:, part]
          for name in ("query", "key", "value")
        )
        depends = of_heads * tree + of_children * tree.T
        parts.append((sigmoid(query @ key.T / 2) * depends) @ value)
      x = x + reference.dense(q["attention"]["out"], np.concatenate(parts, axis=-1))
      y = reference.norm(q["mlp_norm"], x, encoder.norm_epsilon)
      y = reference.dense(q["mlp"]["up"], y)
      x = x + reference.dense(q["mlp"]["down"], np.where(y > 0, y, 0.01 * y))
    x = reference.norm(p["encoder"]["norm"], x, encoder.norm_epsilon)
    logits[segment == number] = x @ p["encoder"]["tokens"].T + p["bias"]
  return logits


@pytest.mark.parametrize("context_depth", [0, 1])
def test_loss_and_logits_of_the_equations(context_depth):
  objective, variables = make(context_depth=context_depth)
  mask = objective.mask(BATCH, STEP)
  text = objective.masking.with_mask_tokens(BATCH, mask)

  @jax.jit
  def both(variables):
    loss = objective.loss(variables, BATCH, STEP)
    return objective.predict(variables, text, mask), loss.sum

  found, loss = both(variables)
  errors = 0.0
  for i in range(3):
    params = variables.params
    expected = run(params, objective, row({**BATCH, "token": text.token}, i))
    assert_close(found[i], expected[np.asarray(mask.masked_ids[i])])
    ids = np.flatnonzero(mask.masked[i])
    errors -= reference.log_softmax(expected)[ids, BATCH["token"][i, ids]].sum()
  # All that is masked becomes mask tokens.
  assert_close(loss, errors)


def test_what_is_dropped(monkeypatch):
  """Branches, hidden units of MLPs, what is parsed and what is predicted from."""
  dropped = []

  def record(module, y, rate):
    dropped.append((type(module).__name__, y.shape[-1], rate))
    return y

  for module in (network, transformer, text_encoders):
    monkeypatch.setattr(module, "dropout", record)
  objective, variables = make(context_depth=1, dropout=0.2)
  del dropped[:]
  jax.eval_shape(objective.loss, variables, BATCH, STEP)
  found = {entry for entry in dropped if entry[2]}
  own = {("StructFormer", 8, 0.2), ("TreeBlock", 8, 0.2), ("Block", 8, 0.2)}
  assert found == own | {("Mlp", 32, 0.2)}
  # The parser's input, and the last layer's; two branches of each block.
  counts = collections.Counter(name for name, *_ in dropped)
  assert counts["StructFormer"] == counts["TreeBlock"] == counts["Mlp"] == 2


def test_the_parser_learns_and_constrains():
  objective, variables = make()
  params = variables.params
  assert "transformer" not in params["encoder"]
  gradient = jax.grad(lambda p: objective.loss(Variables(p), BATCH, STEP).value())
  slope = jax.jit(gradient)(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
  for name in ("conv_0", "height", "distance"):
    assert np.abs(slope["parser"][name]["kernel"]).max() > 0
  assert np.abs(slope["relations"]).max() > 0 and (slope["log_scale"] != 0).all()
  # BERT has no such parameters.
  plain = bert(
    **{k: v for k, v in SHAPE.items() if k not in ("parser_depth", "conv_size")}
  )
  assert "parser" not in jax.eval_shape(plain.init, KEY, BATCH).params
  parse = jax.jit(lambda p, t: objective.model.apply({"params": p}, t, method="parse"))
  tree = parse(params, objective.rows(BATCH))
  apart = BATCH["segment"][:, None] != BATCH["segment"][..., None]
  assert (np.asarray(tree)[np.asarray(apart)] == 0).all()
  assert (np.asarray(tree).sum(axis=-1) < 1 + 1e-5).all() and (tree > 0).any()


def test_the_parser_begins_as_torchs_layers_do():
  """Uniform, biases too, 1 over the root of the inputs at most."""
  objective = structformer(**SHAPE)
  parser = jax.jit(objective.init)(KEY, BATCH).params["parser"]
  for name in ("conv_0", "height_hidden", "distance_hidden"):
    for drawn in parser[name].values():
      limit = len(parser[name]["kernel"]) ** -0.5
      assert 0.6 * limit < np.abs(drawn).max() <= limit


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(context_depth=2), "context_depth=2: expected at least 0 and less than enc"),
    (dict(parser_depth=0), "parser_depth=0: expected at least 1"),
    (dict(conv_size=4), "conv_size=4: expected an odd number"),
    (dict(encoder=dict(size="Ti", norm_last=True)), "expected False, to normalize"),
    (dict(scan=True), "scan=True: expected False"),
    (dict(encoder=dict(size="Ti", embed_width=64)), "embed_width=64: expected none"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
