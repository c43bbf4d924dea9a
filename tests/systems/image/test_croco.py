"""CroCo: images completed with the help of another view."""

import functools

import jax
import numpy as np
import pytest
import torch
from helpers.arrays import assert_close, random, shaken
from helpers.image.by_layers import (
  IMAGES,
  KEY,
  blocks,
  dense,
  doubles,
  make_batch,
  norm,
  normalized,
  patches_of,
  pick,
  train,
)

from maskjax.errors import UserError
from maskjax.models import Decoder
from maskjax.objectives import Step, Variables
from maskjax.systems import croco
from maskjax.tokens import sincos

SMALL = {"width": 8, "depth": 1, "heads": 2}
DECODER = {"width": 16, "depth": 2, "heads": 2}
POSITIONS = ("sincos", "rotary")
GRID_POSITIONS = np.indices((3, 4)).reshape(2, 12).T
STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """No second view, as in MAE: the decoder sees nothing of it but its positions."""
  call = Decoder.__call__

  def without_view(self, encoded, mask, visible_too, view=None):
    return call(self, encoded, mask, visible_too, None if view is None else 0 * view)

  monkeypatch.setattr(Decoder, "__call__", without_view)


def make_croco(positions, **more):
  shapes = {**IMAGES, "encoder": SMALL, "decoder": DECODER}
  return croco(**{**shapes, "positions": positions, "mask_ratio": 0.7, **more})


def make_pairs(**more):
  return make_batch(image2=random(4, 6, 8, 1), **more)


@functools.cache
def outcome(positions):
  """Parameters, and what the system computes of a batch under them."""
  objective = make_croco(positions)
  shapes = jax.eval_shape(objective.init, KEY, make_pairs())
  params = shaken(shapes.params)

  @jax.jit
  def run(params, batch):
    variables, mask = Variables(params), objective.mask(batch, STEP)

    def loss(params):
      loss = objective.loss(Variables(params), batch, STEP)
      return loss.value(), loss

    (_, loss), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return {
      "mask": mask,
      "loss": loss,
      "gradients": gradients,
      "predicted": objective.predictions(variables, batch, mask),
      "features": objective.features(variables, batch),
      "pictures": objective.reconstruct(variables, batch, STEP),
    }

  return params, lambda batch: jax.device_get(run(params, batch))


def encode(p, patches, ids, positions):
  x = dense(p["embed"], patches)
  at = doubles(GRID_POSITIONS).expand(len(patches), -1, -1)
  if positions == "sincos":
    x = x + doubles(sincos((3, 4), 8))
  x, at = pick(x, ids), pick(at, ids)
  where = {"places": at} if positions == "rotary" else {}
  return norm(p["norm"], blocks(p["transformer"], x, **where)[-1])


def by_layers(p, first, second, mask, positions):
  """The paper's networks, mask tokens at their positions: the masked patches."""
  count = len(first)
  everything = np.tile(np.arange(12), (count, 1))
  of_first = encode(p["encoder"], first, mask.visible_ids, positions)
  of_second = encode(p["encoder"], second, everything, positions)
  p = p["decoder"]
  tokens = dense(p["embed"], of_first)
  x = torch.cat([tokens, p["mask_token"].expand(count, 12 - tokens.shape[1], -1)], 1)
  x = pick(x, mask.restore_ids)
  context = dense(p["embed"], of_second)
  at = doubles(GRID_POSITIONS).expand(count, -1, -1)
  where = {"places": at, "context_places": at} if positions == "rotary" else {}
  if positions == "sincos":
    table = doubles(sincos((3, 4), 16))
    x, context = x + table, context + table
  x = blocks(p["transformer"], x, context=context, **where)[-1]
  return pick(dense(p["head"], norm(p["norm"], x)), mask.masked_ids)


@pytest.mark.parametrize("positions", POSITIONS)
def test_it_is_the_papers_network(positions):
  params, run = outcome(positions)
  batch = make_pairs()
  out = run(batch)
  p = jax.tree.map(lambda x: x.requires_grad_(), doubles(params))
  first, second = (patches_of(batch[name]) for name in ("image", "image2"))
  mask = out["mask"]
  predicted = by_layers(p, doubles(first), doubles(second), mask, positions)
  assert_close(out["predicted"], predicted.detach())
  truth = pick(doubles(normalized(first)), mask.masked_ids)
  loss = torch.nn.functional.mse_loss(predicted, truth)
  np.testing.assert_allclose(out["loss"].value(), loss.item(), rtol=1e-5)
  assert out["loss"].weight == 4 * 8
  loss.backward()
  assert_close(out["gradients"], jax.tree.map(lambda x: x.grad.numpy(), p))


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_second_view_is_seen_whole_and_helps_each_patch(positions):
  batch, run = make_pairs(), outcome(positions)[1]
  before = run(batch)
  for n in range(12):
    other = batch["image2"].copy()
    row, column = divmod(n, 4)
    other[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += random(4, 2, 2, 1)
    after = run({**batch, "image2": other})
    assert (after["predicted"] != before["predicted"]).any(axis=2).all()
    np.testing.assert_array_equal(after["features"], before["features"])


def test_masked_patches_are_not_seen():
  batch, run = make_pairs(), outcome("sincos")[1]
  out = run(batch)
  masked = out["mask"].masked.reshape(4, 3, 1, 4, 1) * np.ones((2, 1, 2))
  image = np.where(masked.reshape(4, 6, 8, 1), 7 * random(4, 6, 8, 1), batch["image"])
  after = run({**batch, "image": image.astype(np.float32)})
  np.testing.assert_array_equal(after["predicted"], out["predicted"])
  assert abs(after["loss"].sum / out["loss"].sum - 1) > 1e-3


def test_rotary_positions_are_seen_as_differences_alone():
  """Of an image of one color they distinguish no patches, as embeddings do."""
  batch = make_pairs(image=np.ones((4, 6, 8, 1), np.float32))
  rotary, sincos = (outcome(p)[1](batch)["features"] for p in ("rotary", "sincos"))
  assert np.ptp(rotary, axis=1).max() < 1e-5
  assert np.ptp(sincos, axis=1).min() > 1e-3


def test_pictures():
  batch = make_pairs()
  out = outcome("sincos")[1](batch)
  pictures, mask = out["pictures"], out["mask"]
  np.testing.assert_array_equal(pictures["original"], batch["image"])
  np.testing.assert_array_equal(pictures["second view"], batch["image2"])
  true, drawn = patches_of(batch["image"]), patches_of(pictures["reconstructed"])
  seen = ~mask.masked
  np.testing.assert_allclose(drawn[seen], true[seen], atol=1e-5)
  masked = np.take_along_axis(true, mask.masked_ids[..., None], axis=1)
  std = np.sqrt(masked.var(-1, ddof=1, keepdims=True) + 1e-6)
  expected = out["predicted"] * std + masked.mean(-1, keepdims=True)
  drawn = np.take_along_axis(drawn, mask.masked_ids[..., None], axis=1)
  np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_it_learns_to_look_at_the_second_view():
  """Images of one color each, which the second view shows best."""
  colors = np.linspace(-2, 2, 16)[:, None, None, None]
  noise = random(2, 16, 6, 8, 1)
  first = (colors + noise[0]).astype(np.float32)
  second = (colors + 0.1 * noise[1]).astype(np.float32)
  batch = {"image": first, "image2": second, "index": np.arange(16)}
  decoder = {**DECODER, "depth": 1}
  objective = make_croco("sincos", norm_pix_loss=False, decoder=decoder)
  values, _, state = train(objective, batch, steps=60)
  # Only the noise cannot be predicted: a variance of 1 where the colors have 1.5.
  assert np.mean(values[-5:]) < 0.6 * np.mean(values[:5])

  @jax.jit
  def loss(params, batch):
    return objective.loss(Variables(params), batch, STEP).value()

  swapped = {**batch, "image2": second[::-1]}
  assert loss(state.params, swapped) > 2 * loss(state.params, batch)


def test_the_number_of_masked_patches_is_rounded_down():
  assert croco().masking.num_masked == 176  # of 196, by the authors' code


def test_the_shapes_of_pairs():
  shapes = make_croco("sincos").batch_shapes(5)
  assert shapes["image2"] == shapes["image"] and shapes["image"].shape == (5, 6, 8, 1)


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"positions": "learned"}, "positions='learned': expected 'sincos' or 'rotary'"),
    (
      {"decoder": {"heads": 3}},
      r"decoder.width=512: expected a multiple of decoder.he",
    ),
    (
      {"positions": "rotary", "decoder": {"width": 12, "heads": 2}},
      "decoder.width=12: expected a multiple of 4 channels for each of",
    ),
  ],
)
def test_hyperparameters_that_do_not_fit(wrong, message):
  with pytest.raises(UserError, match=message):
    croco(**IMAGES, **wrong)


def test_images_without_a_second_view_are_refused():
  with pytest.raises(UserError, match="no 'image2'.*'image_pairs'.*'second_view'"):
    jax.eval_shape(make_croco("sincos").init, KEY, make_batch())
