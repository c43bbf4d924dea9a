"""MEAP: the next token everywhere, some of what is read masked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax.errors import UserError
from maskjax.masking.text_policy import TextMasking
from maskjax.objectives import Step, Variables
from maskjax.systems import meap
from maskjax.tokens import Text

BATCH = batch(count=3)
# The first row's last 12 tokens are another document.
BATCH["segment"] = BATCH["segment"].at[0, 20:].set(2)
BATCH["position"] = BATCH["position"].at[0, 20:].set(jnp.arange(12))
KEY = jax.random.key(3)
# Two of the four queries share a key, as 16 of the paper's 32.
ENCODER = dict(kind="llama", width=8, depth=2, heads=4, key_heads=2, norm="rms")
SHAPE = dict(vocab_size=300, length=32, encoder=ENCODER)
OBJECTIVE = meap(**SHAPE)
PARAMS = jax.tree.map(jnp.asarray, shaken(OBJECTIVE.init(KEY, BATCH).params))


def without_mechanism(monkeypatch):
  """Without masks: ordinary prediction of the next token."""
  monkeypatch.setattr(
    TextMasking, "with_mask_tokens", lambda self, batch, mask: Text.of(batch)
  )


def run(row):
  """Log-probabilities of what follows each token of a row, in NumPy: [N, V]."""
  encoder, p = OBJECTIVE.model.encoder, reference.tree(PARAMS)
  positions = np.asarray(row.position)
  sees = reference.same_document(row) & (positions[None] <= positions[:, None])
  x = reference.embed(p["encoder"], row, encoder)
  how = dict(turn=reference.rotary(positions, 10_000.0), activation=reference.silu)
  x = reference.blocks(p["encoder"]["transformer"], x, sees, encoder, **how)
  x = reference.norm(p["encoder"]["norm"], x, encoder.norm_epsilon, "rms")
  return reference.log_softmax(x @ p["head"])


def test_loss_of_the_equations():
  mask = OBJECTIVE.mask(BATCH, Step(KEY))
  token = np.asarray(BATCH["token"])
  seen = np.where(mask.masked, 3, token)
  assert (seen != token).sum() == mask.masked.sum() > 0
  errors, count = 0.0, 0
  for i in range(3):
    likely = run(row({**BATCH, "token": jnp.asarray(seen)}, i))
    for n in range(31):
      # Targets are the tokens as they were, masked or not.
      if BATCH["segment"][i, n] == BATCH["segment"][i, n + 1] > 0:
        errors -= likely[n, token[i, n + 1]]
        count += 1
  loss = jax.jit(OBJECTIVE.loss)(Variables(PARAMS, ()), BATCH, Step(KEY))
  assert_close(loss.sum, errors)
  # All tokens but the first of each document.
  filled = np.asarray(BATCH["segment"] > 0).sum()
  assert loss.weight == count == filled - np.asarray(BATCH["segment"]).max(axis=1).sum()


def test_no_prediction_depends_on_later_tokens():
  text = OBJECTIVE.rows(BATCH)
  other = text.with_tokens(text.token.at[:, 9].add(1))
  first, second = (
    OBJECTIVE.features(Variables(PARAMS), {**BATCH, "token": t.token})
    for t in (text, other)
  )
  np.testing.assert_array_equal(first[:, :9], second[:, :9])
  assert (first[:, 9] != second[:, 9]).any()
  # Not even a token's own prediction depends on it.
  ids = jnp.full((3, 1), 9)
  logits = [OBJECTIVE.model.apply({"params": PARAMS}, t, ids) for t in (text, other)]
  np.testing.assert_array_equal(*logits)


def test_masked_tokens_are_predicted_by_their_left_neighbor():
  mask = OBJECTIVE.mask(BATCH, Step(KEY))
  text = OBJECTIVE.masking.with_mask_tokens(BATCH, mask)
  found = jax.nn.log_softmax(OBJECTIVE.predict(Variables(PARAMS), text, mask))
  for i in range(3):
    ids = np.asarray(mask.masked_ids[i])[np.asarray(mask.is_masked[i])]
    expected = run(row(dataclasses.asdict(text), i))[ids - 1]
    assert_close(np.asarray(found[i])[np.asarray(mask.is_masked[i])], expected)


def test_masks_enhance():
  """Without masks the loss is that of ordinary prediction of the next token."""
  nothing = dataclasses.replace(
    OBJECTIVE.masking, sampler=lambda key, text, count: text.word < -1
  )
  plain = dataclasses.replace(OBJECTIVE, masking=nothing)
  ids = jnp.broadcast_to(jnp.arange(1, 32), (3, 31))
  text = OBJECTIVE.rows(BATCH)
  logits = OBJECTIVE.model.apply({"params": PARAMS}, text, ids)
  errors = -jnp.take_along_axis(
    jax.nn.log_softmax(logits), text.token[:, 1:, None], axis=-1
  )[..., 0]
  loss = plain.loss(Variables(PARAMS, ()), BATCH, Step(KEY))
  assert_close(loss.sum, (errors * (text.position[:, 1:] > 0)).sum())
  assert loss.sum != OBJECTIVE.loss(Variables(PARAMS, ()), BATCH, Step(KEY)).sum


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(mask_ratio=1.0), "mask_ratio=1.0: expected a number between 0 and 1"),
    (dict(encoder=dict(kind="lama", size="B")), "did you mean 'llama'"),
    (dict(encoder=dict(kind="llama", width=6, depth=1, heads=2)), "multiple of 2"),
    (dict(encoder={**ENCODER, "key_heads": 3}), "key_heads=3: expected a divisor of h"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    meap(**{**SHAPE, **options}).init(KEY, BATCH)
