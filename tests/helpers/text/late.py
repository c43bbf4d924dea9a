"""Language models whose mask tokens enter late, in NumPy: what 3ML and MAE-LM share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax.models.text import TextEncoder
from maskjax.objectives import Step, Variables
from maskjax.objectives.text import token_loss

BATCH = batch(count=3)
KEY = jax.random.key(3)
STEP = Step(KEY)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=2, heads=2))


def make(system, **options):
  objective = system(**{**SHAPE, "decoder_depth": 2, **options})
  params = shaken(jax.jit(objective.init)(KEY, BATCH).params)
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


def logits_of(params, objective, text, ids, late):
  """Logits of one row in NumPy: its positions `ids`, while `late` stands out."""
  encoder, p = objective.model.encoder, reference.tree(params)
  late = np.asarray(late)
  seen = np.setdiff1d(np.arange(32), late)

  def pick(at):
    return jax.tree.map(lambda column: np.asarray(column)[at], text)

  x = np.zeros((32, 8))
  x[seen] = reference.encode(p["encoder"], pick(seen), encoder)
  if not objective.model.begins_anew:
    x[late] = reference.embed(p["encoder"], pick(late), encoder)
  else:
    x[late] = p["encoder"]["tokens"][np.asarray(text.token)[late]]
    x = x + p["positions"][np.asarray(text.position)]
    x = reference.norm(p["enter_norm"], x, encoder.norm_epsilon)
  x = reference.blocks(p["decoder"], x, reference.same_document(text), encoder)
  if not encoder.options.norm_last:
    x = reference.norm(p["norm"], x, encoder.norm_epsilon)
  return reference.vocabulary(p["head"], p["encoder"]["tokens"], x[ids], encoder)


def check_logits_and_loss(objective, params):
  """The network and its training loss against the equations; returns the loss."""
  mask = objective.mask(BATCH, STEP)
  text, late = objective.late_tokens(BATCH, mask, STEP)
  late_ids = (mask if late is None else late).masked_ids
  ids = np.asarray(mask.masked_ids)
  found = jax.jit(objective.model.apply)({"params": params}, text, ids, late)
  rows = {**BATCH, "token": text.token}
  expected = np.stack(
    [logits_of(params, objective, row(rows, i), ids[i], late_ids[i]) for i in range(3)]
  )
  assert_close(found, expected)
  targets = np.asarray(mask.take_masked(BATCH["token"]))[..., None]
  errors = -np.take_along_axis(reference.log_softmax(expected), targets, axis=-1)
  where = np.asarray(mask.is_masked)
  loss = jax.jit(objective.loss)(Variables(params, ()), BATCH, STEP)
  assert_close(loss.sum, errors[..., 0][where].sum())
  assert loss.weight == where.sum()
  return loss


def loss_if_all_enter_late(objective, params):
  """The loss where every masked token is a mask token, as in evaluation."""
  mask = objective.mask(BATCH, STEP)
  logits = jax.jit(objective.predict)(
    Variables(params), objective.masking.with_mask_tokens(BATCH, mask), mask
  )
  return token_loss(logits, mask.take_masked(BATCH["token"]), mask.is_masked)
