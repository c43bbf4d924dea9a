"""ExLM: mask tokens as several states, and all paths through them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.objectives.text import MaskedLanguageModel
from maskjax.systems import exlm
from maskjax.systems.text.exlm.alignment import log_likelihood, occupancy
from maskjax.systems.text.exlm.objective import ExLm

BATCH = batch(count=3)
KEY = jax.random.key(3)
STEP = Step(KEY)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=16, depth=1, heads=2))


def without_mechanism(monkeypatch):
  """Each masked token by itself, as in BERT, instead of by all paths through states."""
  monkeypatch.setattr(ExLm, "loss", MaskedLanguageModel.loss)


def make(**options):
  objective = exlm(**{**SHAPE, "states": 3, **options})
  params = shaken(jax.jit(objective.init)(KEY, BATCH).params)
  return objective, Variables(jax.tree.map(jnp.asarray, params))


def two_axes(positions, numbers):
  """Rotary positions of two axes: half of the channels each."""
  turns = reference.rotary(positions, 1e4), reference.rotary(numbers, 1e4)

  def turn(x):
    return np.concatenate(
      [t(part) for t, part in zip(turns, np.split(x, 2, axis=-1), strict=True)], axis=-1
    )

  return turn


def expand(params, objective, row, masked):
  """One row in NumPy, its tokens written out one after the other as they are.

  Returns log-probabilities of tokens at each state, [S, V], and of links, [S, S].
  """
  encoder, p, k = (
    objective.model.encoder,
    reference.tree(params),
    objective.model.states,
  )
  filled = int((np.asarray(row.segment) > 0).sum())
  source, number = [], []
  for n in range(filled):
    several = n in (0, filled - 1) or masked[n]
    source += [n] * (k if several else 1)
    number += list(range(1, k + 1)) if several else [0]
  source, number = np.array(source), np.array(number)
  row = jax.tree.map(lambda column: np.asarray(column)[source], row)
  x = reference.embed(p["encoder"], row, encoder)
  if objective.model.zero_masks:
    is_mask = row.token == objective.model.mask_id
    x = np.where(is_mask[:, None], 0, x) * 0.88 / (1 - is_mask.mean())
  turn = two_axes(row.position, number)
  sees = reference.same_document(row)
  x = reference.blocks(p["encoder"]["transformer"], x, sees, encoder, turn)
  x = reference.norm(p["encoder"]["norm"], x, encoder.norm_epsilon)
  at = np.flatnonzero(number)
  logits = reference.vocabulary(p["head"], p["encoder"]["tokens"], x[at], encoder)
  x = np.concatenate([x[at], p["link_positions"][at]], axis=-1)
  query, key = (reference.dense(p[name], x) for name in ("link_query", "link_key"))
  gate = reference.softmax(reference.dense(p["link_gate"], x))
  links, width = np.zeros((len(at), len(at))), encoder.width // encoder.heads
  for i in range(len(at) - 1):
    for h in range(encoder.heads):
      part = slice(h * width, (h + 1) * width)
      scores = key[i + 1 :, part] @ query[i, part] / np.sqrt(width)
      links[i, i + 1 :] += gate[i, h] * reference.softmax(scores)
  return reference.log_softmax(logits), links


def all_paths(links, emissions):
  """The sum over all paths, each written out: [S, S], [E, S] of probabilities."""
  total = 0.0
  for inner in itertools.combinations(range(1, len(links) - 1), len(emissions) - 2):
    path = (0, *inner, len(links) - 1)
    steps = [links[a, b] for a, b in itertools.pairwise(path)]
    total += np.prod(steps) * np.prod([emissions[e, s] for e, s in enumerate(path)])
  return total


def forward(links, emissions):
  """The same by the forward algorithm, for more states than can be written out."""
  so_far = np.zeros(len(links))
  so_far[0] = emissions[0, 0]
  for emission in emissions[1:]:
    so_far = (so_far @ links) * emission
  return so_far[-1]


def test_paths_are_summed():
  rng = np.random.default_rng(0)
  links = np.triu(rng.uniform(size=(7, 7)), 1)
  emissions = rng.uniform(size=(4, 7))
  expected = all_paths(links, emissions)
  assert_close(forward(links, emissions), expected)
  with np.errstate(divide="ignore"):
    logs = np.float32(np.log(links)), np.float32(np.log(emissions))
  ours = log_likelihood(*map(jnp.asarray, logs), jnp.ones(4, bool))
  assert_close(ours, np.log(expected))
  # What is not emitted is skipped.
  with_gap = jnp.asarray(np.insert(logs[1], 2, 0.0, axis=0))
  emits = jnp.array([True, True, False, True, True])
  assert_close(log_likelihood(jnp.asarray(logs[0]), with_gap, emits), ours)
  share = np.asarray(occupancy(jnp.asarray(logs[0]), emits))
  np.testing.assert_allclose(share.sum(axis=1), [1, 1, 0, 1, 1], atol=1e-5)
  nothing = np.ones((4, 7))
  for state in range(7):
    only = nothing.copy()
    only[1] = np.arange(7) == state
    expected = all_paths(links, only) / all_paths(links, nothing)
    assert abs(share[1, state] - expected) < 1e-5


@pytest.mark.parametrize(("states", "zero_masks"), [(1, False), (3, True)])
def test_loss_and_predictions_of_the_equations(states, zero_masks):
  objective, variables = make(states=states, zero_masks=zero_masks)
  # Tokens are normalized in the blocks and at last, and not before them.
  assert {"embed_norm", "norm"} & set(variables.params["encoder"]) == {"norm"}
  mask = objective.mask(BATCH, STEP)
  text = objective.masking.with_mask_tokens(BATCH, mask)
  loss = jax.jit(objective.loss)(variables, BATCH, STEP)
  found = np.exp(jax.jit(objective.predict)(variables, text, mask))
  expected = 0.0
  for i in range(3):
    masked = np.asarray(mask.masked[i])
    one = row(dataclasses.asdict(text), i)
    logs, links = expand(variables.params, objective, one, masked)
    likely = np.exp(logs)
    filled = int((np.asarray(one.segment) > 0).sum())
    at = [0, *np.flatnonzero(masked), filled - 1]
    emissions = likely[:, np.asarray(BATCH["token"][i])[at]].T
    expected -= np.log(forward(links, emissions)) / len(at)
    # A masked token's probabilities, whatever the others are.
    nothing = np.ones(emissions.shape)
    every = forward(links, nothing)
    for e, position in enumerate(at[1:-1], start=1):
      share = [
        forward(links, np.where(np.arange(len(at))[:, None] == e, state, 1)) / every
        for state in np.eye(len(links))
      ]
      likely_here = found[i, list(np.asarray(mask.masked_ids[i])).index(position)]
      assert_close(likely_here, np.array(share) @ likely)
      assert abs(likely_here.sum() - 1) < 1e-4
  assert_close(loss.sum, expected)
  assert loss.weight == 3


def test_states_differ_and_depend_on_each_other():
  objective, variables = make()
  mask = objective.mask(BATCH, STEP)
  text = objective.masking.with_mask_tokens(BATCH, mask)
  paths = functools.partial(objective.model.apply, method="paths")
  params = {"params": variables.params}
  logits, links, emits = jax.jit(paths)(params, text, mask.masked_ids)
  assert logits.shape == (3, 21, 300) and emits[0].all()
  np.testing.assert_array_equal(emits.sum(axis=1), mask.masked.sum(axis=1) + 2)
  # The states of one mask token emit different things.
  assert (np.asarray(logits[0, 3]) != np.asarray(logits[0, 4])).all()
  # From each state one goes somewhere ahead, but from the last one.
  total = np.exp(np.float64(links)).sum(axis=-1)
  real = np.repeat(np.asarray(emits), 3, axis=1)
  np.testing.assert_allclose(total[:, :-1], real[:, :-1], atol=1e-5)
  assert (total[:, -1] == 0).all()
  gradient = jax.grad(lambda p: objective.loss(Variables(p), BATCH, STEP).value())
  slope = jax.jit(gradient)(variables.params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
  for name in ("link_query", "link_key", "link_gate"):
    assert np.abs(slope[name]["kernel"]).max() > 0
  shape = jax.eval_shape(objective.features, variables, BATCH).shape
  assert shape == (3, 32, 16)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(states=0), "states=0: expected at least 1"),
    (dict(encoder=dict(size="Ti", positions="learned")), "expected 'rotary', of two"),
    (dict(encoder=dict(width=12, depth=1, heads=2)), "a multiple of 4 channels"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
