"""SpanBERT: spans are predicted from the tokens around them, in torch once more."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close
from helpers.text.rows import batch, runs

from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, spanbert
from maskjax.systems.text.spanbert import SpanBert

torch = pytest.importorskip("torch")

BATCH = batch(count=4)
KEY = jax.random.key(3)
STEP = Step(KEY)
ENCODER = dict(width=8, depth=1, heads=2)
SHAPE = dict(vocab_size=300, length=32, encoder=ENCODER, mask_ratio=0.3)
OBJECTIVE = spanbert(**SHAPE, place_width=5, longest_target=2)


def without_mechanism(monkeypatch):
  """Without the boundary objective: BERT's loss of masked spans is left."""
  whole = SpanBert.loss

  def loss(self, variables, batch, step):
    found = whole(self, variables, batch, step)
    return dataclasses.replace(found, sum=found.metrics["masked"].sum)

  monkeypatch.setattr(SpanBert, "loss", loss)


@functools.cache
def variables():
  """Parameters, every one of them random."""
  params = jax.jit(OBJECTIVE.init)(KEY, BATCH).params
  leaves, shape = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  noise = [jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32) for x in leaves]
  shaken = [a + b for a, b in zip(leaves, noise, strict=True)]
  return Variables(jax.tree.unflatten(shape, shaken))


@jax.jit
def loss_of(variables):
  return OBJECTIVE.loss(variables, BATCH, STEP)


def tensor(array):
  return torch.from_numpy(np.array(array))


def in_torch(head, table, features, left, right, position):
  """The paper's two layers, and the table of tokens: h0, h1, y of section 3.2."""
  norm = functools.partial(torch.nn.functional.layer_norm, normalized_shape=(8,))
  table_of_positions = tensor(head["places"])
  y = torch.cat([features[left], features[right], table_of_positions[position]], dim=-1)
  for name in ("first", "second"):
    layer, scale = head[f"{name}_dense"], head[f"{name}_norm"]
    y = y @ tensor(layer["kernel"]) + tensor(layer["bias"])
    y = torch.nn.functional.gelu(y)
    y = norm(y, weight=tensor(scale["scale"]), bias=tensor(scale["bias"]), eps=1e-12)
  return y @ tensor(table).T + tensor(head["bias"])


def test_the_loss_is_that_of_the_paper():
  params = variables().params
  found = loss_of(variables())
  mask, text = masked_rows(KEY)
  features = OBJECTIVE.model.apply({"params": params}, text, method="encode")
  total, count, left_out = 0.0, 0, {"end": 0, "long": 0}
  is_word = np.asarray(BATCH["word"]) >= 0
  for row, masked in enumerate(np.asarray(mask.masked)):
    for first, last in runs(masked):
      if not (is_word[row, first - 1] and is_word[row, last + 1]):
        left_out["end"] += last + 1 - first
        continue
      left_out["long"] += max(0, last - first - 1)
      for i in range(first, min(last, first + 1) + 1):
        logits = in_torch(
          params["boundaries"],
          params["encoder"]["tokens"],
          tensor(features[row]),
          first - 1,
          last + 1,
          i - first,
        )
        target = torch.tensor(int(BATCH["token"][row, i]))
        total += float(torch.nn.functional.cross_entropy(logits, target))
        count += 1
  assert min(count, *left_out.values()) > 0
  assert found.weight == mask.masked.sum() == count + sum(left_out.values())
  assert found.metrics["boundary"].weight == count
  assert_close(found.metrics["boundary"].sum, np.float32(total))
  # From their own features they are predicted as in BERT.
  logits = jax.jit(OBJECTIVE.predict)(variables(), text, mask)
  likely = torch.log_softmax(tensor(logits), dim=-1)
  tokens = tensor(mask.take_masked(BATCH["token"])).long()
  errors = -likely.gather(-1, tokens[..., None])[..., 0]
  own = errors[tensor(mask.is_masked)].sum()
  assert_close(found.metrics["masked"].sum, own.numpy())
  assert_close(found.sum, np.float32(total) + own.numpy())


def test_the_boundary_head_reads_nothing_of_masked_features():
  """The head of masked positions changes nothing but BERT's part."""

  def boundary(params):
    return loss_of(Variables(params)).metrics["boundary"].sum

  grads = jax.grad(boundary)(variables().params)
  size = {
    name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(part))
    for name, part in grads.items()
  }
  assert size["head"] == 0 and size["boundaries"] > 0 and size["encoder"] > 0
  plain = bert(**SHAPE, mask="spans")
  assert "boundaries" not in plain.init(KEY, BATCH).params


@jax.jit
def masked_rows(key):
  mask = OBJECTIVE.mask(BATCH, Step(key))
  return mask, OBJECTIVE.replaced_runs(BATCH, mask, Step(key))


def test_a_run_is_replaced_as_one():
  kinds = set()
  for key in jax.random.split(KEY, 30):
    mask, text = masked_rows(key)
    for row, masked in enumerate(np.asarray(mask.masked)):
      for first, last in runs(masked):
        before = np.asarray(BATCH["token"])[row, first : last + 1]
        after = np.asarray(text.token)[row, first : last + 1]
        masks, keeps = after == 3, after == before
        if last - first > 1:
          kinds.add((masks.all(), keeps.all()))
        assert masks.all() or not masks.any()
  assert kinds == {(True, False), (False, True), (False, False)}


def test_as_many_are_masked_as_the_words_demand():
  filled = (np.asarray(BATCH["word"]) >= 0).sum(axis=1)
  masked = np.asarray(OBJECTIVE.mask(BATCH, STEP).masked).sum(axis=1)
  np.testing.assert_array_equal(masked, np.ceil(0.3 * filled))
  # But held-out text is masked as in all other systems.
  weight = jax.jit(OBJECTIVE.evaluate)(variables(), BATCH, STEP).weight
  whole = (np.asarray(BATCH["segment"]) > 0).sum(axis=1)
  assert weight == np.round(0.15 * whole).sum()


def test_the_shipped_masking_is_of_spans():
  masking = spanbert(vocab_size=300).masking
  assert masking.sampler is words.spans and masking.ratio == 0.15


def test_what_is_predicted_from_a_boundary_has_positions():
  """And no other tokens of a run, as in the authors' code."""
  table = variables().params["boundaries"]["places"]
  assert table.shape == (2, 5)


def test_mistakes():
  with pytest.raises(UserError, match="place_width=0: expected at least 1"):
    spanbert(**SHAPE, place_width=0)
  with pytest.raises(UserError, match="longest_target=0: expected at least 1"):
    spanbert(**SHAPE, longest_target=0)
  with pytest.raises(UserError, match="did you mean 'spans'"):
    spanbert(**SHAPE, mask="span")
