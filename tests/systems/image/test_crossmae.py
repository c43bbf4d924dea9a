"""CrossMAE: masked patches that never meet, and blocks that see the whole encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.arrays import assert_close, shaken
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

from maskjax import keys
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import VisionEncoder
from maskjax.objectives import Step, Variables
from maskjax.planning.flops import matmul_flops
from maskjax.systems import crossmae, mae
from maskjax.tokens import sincos

STEP = Step(KEY)
DECODER = {"width": 12, "depth": 3, "heads": 2}
# 9 of 12 patches are masked, and 3 of these are predicted.
OBJECTIVE = crossmae(**IMAGES, decoder=DECODER)


def without_mechanism(monkeypatch):
  """The decoder attends to the last output of the encoder, not to a mixture of all."""
  every_block = VisionEncoder.every_block

  def last_alone(self, *args, **kwargs):
    outputs = every_block(self, *args, **kwargs)
    return [outputs[-1]] * len(outputs) if kwargs.get("embedded_too") else outputs

  monkeypatch.setattr(VisionEncoder, "every_block", last_alone)


@functools.cache
def outcome():
  """Parameters, and what the system computes of a batch under them."""
  shapes = jax.eval_shape(OBJECTIVE.init, KEY, make_batch())
  params = shaken(shapes.params)

  @jax.jit
  def run(params, batch):
    mask = OBJECTIVE.mask(batch, STEP)
    example_keys = keys.example_keys(keys.named(KEY, "predicted"), batch)
    some = mask.subset(example_keys, OBJECTIVE.num_predicted)
    patches = OBJECTIVE.patches(batch)

    def loss(params):
      loss = OBJECTIVE.loss(Variables(params), batch, STEP)
      return loss.value(), loss

    (_, loss), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return {
      "mask": mask,
      "some": some,
      "loss": loss,
      "gradients": gradients,
      "predicted": OBJECTIVE.apply(Variables(params), patches, some),
      "masked": OBJECTIVE.apply(Variables(params), patches, mask),
      "all": OBJECTIVE.apply(Variables(params), patches, mask, True),
    }

  return params, lambda batch: jax.device_get(run(params, batch))


def by_layers(p, patches, mask, ids):
  """The paper's network: predictions at the positions `ids`."""
  x = pick(dense(p["encoder"]["embed"], patches) + doubles(sincos((3, 4), 8)), mask)
  x = torch.cat([p["encoder"]["cls"].expand(len(x), 1, -1), x], dim=1)
  features = [x, *blocks(p["encoder"]["transformer"], x)]
  decoder = p["decoder"]
  context = [
    sum(w * f for w, f in zip(weights, features, strict=True))
    for weights in decoder["weights"]
  ]
  everywhere = doubles(sincos((3, 4), 12)).expand(len(x), -1, -1)
  x = decoder["mask_token"] + pick(everywhere, ids)
  x = blocks(decoder["transformer"], x, context=context)[-1]
  return dense(decoder["head"], norm(decoder["norm"], x))


def test_it_is_the_papers_network():
  params, run = outcome()
  batch = make_batch()
  out = run(batch)
  p = jax.tree.map(lambda x: x.requires_grad_(), doubles(params))
  patches = patches_of(batch["image"])
  some = out["some"].masked_ids
  predicted = by_layers(p, doubles(patches), out["mask"].visible_ids, some)
  assert_close(out["predicted"], predicted.detach())
  truth = pick(doubles(normalized(patches)), some)
  loss = torch.nn.functional.mse_loss(predicted, truth)
  np.testing.assert_allclose(out["loss"].value(), loss.item(), rtol=1e-5)
  loss.backward()
  theirs = jax.tree.map(lambda x: x.grad.numpy(), p)
  assert_close(out["gradients"], theirs)


def test_what_else_is_predicted_changes_no_prediction():
  """Mask tokens that met, as MAE's do, would change each other."""
  out = outcome()[1](make_batch())
  for b in range(4):
    np.testing.assert_allclose(
      out["all"][b, out["mask"].masked_ids[b]], out["masked"][b], atol=1e-5
    )
    np.testing.assert_allclose(
      out["all"][b, out["some"].masked_ids[b]], out["predicted"][b], atol=1e-5
    )


def test_the_loss_is_of_a_part_of_the_masked_patches():
  batch, run = make_batch(), outcome()[1]
  out = run(batch)
  assert out["mask"].masked.sum() == 4 * 9
  assert out["loss"].weight == 4 * 3
  # Patches that are neither visible nor predicted, and the first that is predicted.
  left_out = out["mask"].masked.copy()
  chosen = np.zeros_like(left_out)
  for b, ids in enumerate(out["some"].masked_ids):
    left_out[b, ids] = False
    chosen[b, ids[0]] = True

  def loss_with_noise(where):
    grid = where.reshape(4, 3, 1, 4, 1) * np.ones((1, 1, 2, 1, 2))
    noise = np.random.default_rng(1).normal(size=(4, 6, 8, 1))
    image = batch["image"] + grid.reshape(4, 6, 8, 1) * noise
    return run({**batch, "image": image.astype(np.float32)})["loss"].sum

  assert loss_with_noise(left_out) == out["loss"].sum
  assert abs(loss_with_noise(chosen) / out["loss"].sum - 1) > 1e-2


def test_what_is_predicted_follows_the_key_and_the_index():
  batch = make_batch()
  some = outcome()[1](batch)["some"].masked_ids
  backwards = outcome()[1]({**batch, "index": np.arange(4)[::-1]})["some"].masked_ids
  np.testing.assert_array_equal(backwards[::-1], some)


def test_it_learns_from_weights_that_begin_as_noise():
  values, first, _ = train(OBJECTIVE, make_batch(8), steps=40)
  assert np.mean(values[-5:]) < 0.6 * np.mean(values[:5])
  weights = first.params["decoder"]["weights"]
  # Three blocks of the decoder; the embedded patches and two blocks of the encoder.
  assert weights.shape == (3, 3)
  # Xavier's distribution, of 3 inputs and 3 outputs, is at most 1.
  assert 0.2 < np.std(weights) and np.abs(weights).max() <= 1
  assert np.unique(weights).size == 9


def test_a_quarter_of_the_masked_patches_costs_at_most_two_fifths_of_maes_decoder():
  """Twelve blocks against eight, as in the papers, of ViT-B/16 at 224 pixels."""

  def cost(objective, encoded):
    decoder, mask = objective.model.decoder, Mask.exactly(masked, num_masked=147)
    if objective.num_predicted:
      mask = mask.subset(jax.random.split(KEY, 1), objective.num_predicted)
    predict = functools.partial(decoder.apply, mask=mask, visible_too=False)
    make = functools.partial(decoder.init, mask=mask, visible_too=False)
    return matmul_flops(predict, jax.eval_shape(make, KEY, encoded), encoded)

  masked = jnp.arange(196)[None] < 147
  tokens = jax.ShapeDtypeStruct((1, 50, 768), jnp.float32)
  of_mae = cost(mae(), tokens)
  assert cost(crossmae(prediction_ratio=0.75 / 4), [tokens] * 13) < 0.4 * of_mae
  assert cost(crossmae(), [tokens] * 13) < 0.4 * of_mae


def test_how_many_are_predicted_is_rounded_as_by_the_authors():
  """Of 7 patches int(1.75) are visible, and int(3.5) neither visible nor predicted."""
  objective = crossmae(image_size=(2, 14), channels=1, patch_size=2, encoder="Ti")
  assert (objective.masking.num_masked, objective.num_predicted) == (6, 3)


@pytest.mark.parametrize("ratio", [0.0, 0.8])
def test_ratios_that_predict_nothing_or_what_is_visible(ratio):
  with pytest.raises(UserError, match=f"prediction_ratio={ratio}.*mask_ratio=0.75"):
    crossmae(**IMAGES, prediction_ratio=ratio)
