"""3ML and MAE-LM: mask tokens enter late."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax.errors import UserError
from maskjax.models.text import TextEncoder
from maskjax.objectives import Step, Variables
from maskjax.objectives.text import token_loss
from maskjax.systems import mae_lm, three_ml

BATCH = batch(count=3)
KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=2, heads=2))
MAKE = {"three_ml": three_ml, "mae_lm": mae_lm}


def make(name, **options):
  objective = MAKE[name](**{**SHAPE, "decoder_depth": 2, **options})
  params = shaken(objective.init(KEY, BATCH).params)
  return objective, jax.tree.map(jnp.asarray, params)


def lengths_seen(call):
  """How many tokens the encoder sees as `call` is traced."""
  seen, before = [], TextEncoder.every_block

  def spy(self, text):
    seen.append(text.token.shape[1])
    return before(self, text)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(TextEncoder, "every_block", spy)
    jax.eval_shape(call)
  return seen


def test_the_encoder_is_shorter_by_the_mask_tokens():
  # Of 32 tokens half are masked, and 13 of these 16 are mask tokens.
  for name, options, left in (
    ("three_ml", {}, 32 - 13),
    ("mae_lm", dict(mask_ratio=0.5), 16),
  ):
    objective, params = make(name, **options)
    seen = lengths_seen(
      lambda o=objective, p=params: o.loss(Variables(p, ()), BATCH, Step(KEY))
    )
    assert seen == [left], name
  # The mask of all systems' evaluation has 5 of 32 tokens, and that of features none.
  assert lengths_seen(
    lambda: objective.evaluate(Variables(params, ()), BATCH, Step(KEY))
  ) == [27]
  assert lengths_seen(lambda: objective.features(Variables(params), BATCH)) == [32]


@pytest.mark.parametrize("replaced", [(0.8, 0.1), (0.5, 0.5)])
def test_what_is_random_or_stays_is_seen_by_the_encoder(replaced):
  objective, _ = make("three_ml", replaced=replaced)
  drawn = kept = 0
  for key in jax.random.split(KEY, 20):
    mask = objective.mask(BATCH, Step(key))
    text, late = objective.seen_late(BATCH, mask, key)
    tokens, masked = np.asarray(text.token), np.asarray(mask.masked)
    before = np.asarray(BATCH["token"])
    assert (tokens == before)[~masked].all()
    as_mask = tokens == 3
    np.testing.assert_array_equal(as_mask, late.masked)
    # Exactly the share of each row, as near as whole tokens allow.
    np.testing.assert_array_equal(
      as_mask.sum(axis=1), np.round(replaced[0] * masked.sum(axis=1))
    )
    assert not (np.asarray(late.take_visible(text.token)) == 3).any()
    other = masked & ~as_mask
    drawn += (other & (tokens != before)).sum()
    kept += (other & (tokens == before)).sum()
    assert (tokens[other & (tokens != before)] > 3).all()
  share = replaced[1] / (1 - replaced[0])
  assert abs(drawn / (drawn + kept) - share) < 0.15


def run(name, params, objective, text, ids, late):
  """Logits of one row in NumPy: its positions `ids`, while `late` stands out."""
  encoder, p = objective.model.encoder, reference.tree(params)
  late = np.asarray(late)
  seen = np.setdiff1d(np.arange(32), late)

  def pick(at):
    return jax.tree.map(lambda column: np.asarray(column)[at], text)

  x = np.zeros((32, 8))
  x[seen] = reference.encode(p["encoder"], pick(seen), encoder)
  if name == "three_ml":
    x[late] = reference.embed(p["encoder"], pick(late), encoder)
  else:
    x[late] = p["encoder"]["tokens"][np.asarray(text.token)[late]]
    x = x + p["positions"][np.asarray(text.position)]
    x = reference.norm(p["enter_norm"], x, encoder.norm_epsilon)
  x = reference.blocks(p["decoder"], x, reference.same_document(text), encoder)
  if not encoder.options.norm_last:
    x = reference.norm(p["norm"], x, encoder.norm_epsilon)
  return reference.vocabulary(p["head"], p["encoder"]["tokens"], x[ids], encoder)


@pytest.mark.parametrize("norm_last", [True, False])
@pytest.mark.parametrize("name", MAKE)
def test_logits_and_loss_of_the_equations(name, norm_last):
  objective, params = make(name, encoder={**SHAPE["encoder"], "norm_last": norm_last})
  mask = objective.mask(BATCH, Step(KEY))
  text, late = objective.seen_late(BATCH, mask, KEY)
  late_ids = (mask if late is None else late).masked_ids
  ids = np.asarray(mask.masked_ids)
  found = jax.jit(objective.model.apply)({"params": params}, text, ids, late)
  rows = {**BATCH, "token": text.token}
  expected = np.stack(
    [run(name, params, objective, row(rows, i), ids[i], late_ids[i]) for i in range(3)]
  )
  assert_close(found, expected)
  targets = np.asarray(mask.take_masked(BATCH["token"]))[..., None]
  likely = reference.log_softmax(expected)
  errors = -np.take_along_axis(likely, targets, axis=-1)[..., 0]
  where = np.asarray(mask.is_masked)
  loss = jax.jit(objective.loss)(Variables(params, ()), BATCH, Step(KEY))
  assert_close(loss.sum, errors[where].sum())
  assert loss.weight == where.sum()
  # In evaluation all masked tokens are mask tokens and enter late.
  logits = jax.jit(objective.predict)(
    Variables(params), objective.masking.with_mask_tokens(BATCH, mask), mask
  )
  ours = token_loss(logits, mask.take_masked(BATCH["token"]), mask.is_masked)
  assert (abs(ours.value() - loss.value()) < 1e-4) == (name == "mae_lm")


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2"])
def test_late_tokens_know_where_they_are(kind):
  encoder = dict(kind=kind, width=8, depth=1, heads=2)
  objective, params = make("three_ml", encoder=encoder, replaced=(1.0, 0.0))
  mask = objective.mask(BATCH, Step(KEY))
  found = jax.jit(objective.predict)(
    Variables(params), objective.masking.with_mask_tokens(BATCH, mask), mask
  )
  assert (np.abs(found[0, 0] - found[0, 1]) > 1e-3).any()


def test_mask_tokens_do_not_reach_features():
  """The encoder's features of visible tokens are those without any mask token."""
  objective, params = make("mae_lm", mask_ratio=0.5)
  mask = objective.mask(BATCH, Step(KEY))
  table = params["encoder"]["tokens"]
  encoder = {**params["encoder"], "tokens": table.at[3].add(1.0)}
  other = {**params, "encoder": encoder}
  text = objective.masking.with_mask_tokens(BATCH, mask).take(mask.visible_ids)
  first, second = (
    objective.model.apply({"params": p}, text, method="encode") for p in (params, other)
  )
  np.testing.assert_array_equal(first, second)
  changed = [
    objective.predict(
      Variables(p), objective.masking.with_mask_tokens(BATCH, mask), mask
    )
    for p in (params, other)
  ]
  assert (changed[0][..., :3] != changed[1][..., :3]).any()


@pytest.mark.parametrize(
  ("name", "rates"), [("three_ml", (0.5, 0.25)), ("mae_lm", (0, 0))]
)
def test_what_the_further_blocks_drop(name, rates):
  objective, params = make(name, dropout=0.5, attention_dropout=0.25)
  decoder = objective.model.bind({"params": params}).decoder
  assert (decoder.options.dropout, decoder.options.attention_dropout) == rates


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("three_ml", dict(decoder_depth=0), "decoder_depth=0: expected at least 1"),
    ("mae_lm", dict(decoder_depth=0), "decoder_depth=0: expected at least 1"),
    ("three_ml", dict(replaced=(0.0, 0.1)), "expected a share of mask tokens above 0"),
    ("three_ml", dict(mask_ratio=0.0), "mask_ratio=0.0: expected a number between"),
    ("mae_lm", dict(decoder_dropout=1.0), "decoder_dropout=1.0: expected at least 0"),
  ],
)
def test_mistakes(name, options, message):
  with pytest.raises(UserError, match=message):
    MAKE[name](**{**SHAPE, **options})
