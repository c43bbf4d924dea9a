"""DrBERT: further blocks, in which masked tokens are seen little by little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text import reference
from helpers.text.rows import batch, row

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import bert, drbert
from maskjax.systems.text.drbert import RefinedLM, noise

BATCH = batch(count=3)
KEY = jax.random.key(3)
SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))


def without_mechanism(monkeypatch):
  """A decoder of ordinary blocks: everything attends to all masked tokens."""
  monkeypatch.setattr(
    RefinedLM,
    "not_seen",
    lambda self, text, ids, order, share: jnp.zeros(text.token.shape, bool),
  )


def make(**options):
  objective = drbert(**{**SHAPE, **options})
  params = shaken(jax.jit(objective.init)(KEY, BATCH).params)
  return objective, jax.tree.map(jnp.asarray, params)


def run(params, objective, row, masked, order, ids, unrefined):
  """Logits of one row at `ids` in NumPy."""
  encoder, p = objective.model.encoder, reference.tree(params)
  features = reference.encode(p["encoder"], row, encoder)
  sees = []
  for share in objective.model.unmasked:
    ids_of_masked = np.flatnonzero(masked)
    ids_of_masked = ids_of_masked[np.argsort(-np.asarray(order)[ids_of_masked])]
    seen = ~masked
    seen[ids_of_masked[: round(share * len(ids_of_masked))]] = True
    sees.append(reference.same_document(row) & seen[None])
  x = reference.blocks(p["decoder"], features, sees, encoder)
  if not encoder.options.norm_last:
    x = reference.norm(p["norm"], x, encoder.norm_epsilon)
  x = np.where(np.asarray(unrefined)[:, None], features[ids], x[ids])
  return reference.vocabulary(p["head"], p["encoder"]["tokens"], x, encoder)


@pytest.mark.parametrize(
  ("norm_last", "unmasked"), [(True, (0.5, 1.0)), (False, (0.0, 0.3, 1.0))]
)
def test_loss_of_the_equations(norm_last, unmasked):
  encoder = {**SHAPE["encoder"], "norm_last": norm_last}
  objective, params = make(encoder=encoder, mask_ratio=0.4, unmasked=unmasked)
  mask = objective.mask(BATCH, Step(KEY))
  text = objective.masking.replace(BATCH, mask, KEY)
  order = noise("unmask", BATCH, Step(KEY))
  unrefined = mask.take_masked(noise("unrefined", BATCH, Step(KEY))) < 0.5
  assert 0.2 < unrefined.mean() < 0.8
  errors = 0.0
  for i in range(3):
    where = np.asarray(mask.is_masked[i])
    ids = np.asarray(mask.masked_ids[i])[where]
    args = np.asarray(mask.masked[i]), order[i], ids, unrefined[i][where]
    one = row({**BATCH, "token": text.token}, i)
    likely = reference.log_softmax(run(params, objective, one, *args))
    tokens = np.asarray(BATCH["token"][i])[ids]
    errors -= likely[np.arange(len(ids)), tokens].sum()
  loss = jax.jit(objective.loss)(Variables(params, ()), BATCH, Step(KEY))
  assert_close(loss.sum, errors)


def test_predictions_are_the_decoder_s():
  objective, params = make()
  mask = objective.mask(BATCH, Step(KEY))
  found = jax.jit(objective.predict)(
    Variables(params), objective.masking.with_mask_tokens(BATCH, mask), mask
  )
  order = np.arange(32) * 0.6180339887498949 % 1
  row_of = row(
    {**BATCH, "token": objective.masking.with_mask_tokens(BATCH, mask).token}, 0
  )
  ids = np.asarray(mask.masked_ids[0])
  none = np.zeros(len(ids), bool)
  masked = np.asarray(mask.masked[0])
  assert_close(found[0], run(params, objective, row_of, masked, order, ids, none))
  # Features are those of a BERT with the encoder's parameters.
  plain = bert(**SHAPE)
  ours, theirs = (
    jax.jit(o.features)(Variables(params), BATCH) for o in (objective, plain)
  )
  np.testing.assert_array_equal(ours, theirs)


def test_masked_tokens_become_visible_step_by_step():
  objective = drbert(**SHAPE, mask_ratio=0.4, unmasked=(0.0, 0.5, 1.0))
  mask = objective.mask(BATCH, Step(KEY))
  order = noise("unmask", BATCH, Step(KEY))
  text = objective.rows(BATCH)
  unseen = [
    np.asarray(objective.model.not_seen(text, mask.masked_ids, order, share))
    for share in (0.0, 0.5, 1.0)
  ]
  masked = np.asarray(mask.masked)
  np.testing.assert_array_equal(unseen[0], masked)
  counts = masked.sum(axis=1)
  np.testing.assert_array_equal(unseen[1].sum(axis=1), counts - np.round(counts / 2))
  assert (unseen[1] <= unseen[0]).all() and not unseen[2].any()
  # Which ones is random, and does not depend on the batch.
  alone = {name: column[1:2] for name, column in BATCH.items()}
  np.testing.assert_array_equal(noise("unmask", alone, Step(KEY))[0], order[1])


def test_gradients_are_finite_where_a_row_is_nearly_empty():
  objective, params = make(unmasked=(0.0, 1.0))
  loss, slope = jax.jit(
    jax.value_and_grad(
      lambda p: objective.loss(Variables(p, ()), BATCH, Step(KEY)).value()
    )
  )(params)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(unmasked=()), "expected a share from 0 to 1 for each block"),
    (dict(unmasked=(0.5, 1.5)), r"unmasked=\(0.5, 1.5\): expected a share"),
    (dict(unrefined=1.0), "unrefined=1.0: expected at least 0 and less than 1"),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
