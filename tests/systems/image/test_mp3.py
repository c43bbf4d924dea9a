"""MP3: the positions of patches without position embeddings, some of them context."""

import functools

import jax
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
  patches_of,
  train,
)

from maskjax.errors import UserError
from maskjax.models import Transformer
from maskjax.objectives import Step, Variables
from maskjax.systems import mp3

OBJECTIVE, STEP = mp3(**IMAGES, class_token=True), Step(KEY)


def without_mechanism(monkeypatch):
  """All patches are context: attention to every one, masked or not."""
  call = Transformer.__call__

  def attends_to_all(self, *args, num_keys=None, **kwargs):
    return call(self, *args, **kwargs)

  monkeypatch.setattr(Transformer, "__call__", attends_to_all)


@functools.cache
def outcome():
  """Parameters, and what the system computes of a batch under them."""
  shapes = jax.eval_shape(OBJECTIVE.init, KEY, make_batch())
  params = shaken(shapes.params)

  @jax.jit
  def run(params, batch):
    mask = OBJECTIVE.mask(batch, STEP)

    def loss(params):
      loss = OBJECTIVE.loss(Variables(params), batch, STEP)
      return loss.value(), loss

    (_, loss), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    patches = OBJECTIVE.patches(batch)
    return {
      "masked": mask.masked,
      "loss": loss,
      "gradients": gradients,
      "logits": OBJECTIVE.model.apply({"params": params}, patches, mask, True),
      "features": OBJECTIVE.features(Variables(params), batch),
    }

  return params, lambda batch: jax.device_get(run(params, batch))


def by_layers(p, patches, masked):
  """The paper's network: queries of every patch, keys of the context alone."""
  seen = torch.nn.functional.pad(torch.tensor(~masked), (1, 0), value=True)
  x = dense(p["encoder"]["embed"], patches)
  x = torch.cat([p["encoder"]["cls"].expand(len(x), -1, -1), x], dim=1)
  x = blocks(p["encoder"]["transformer"], x, bias=seen[:, None, None, :])[-1]
  return norm(p["encoder"]["norm"], x)[:, 1:]


def test_it_is_the_papers_network():
  params, run = outcome()
  batch = make_batch()
  out = run(batch)
  p = jax.tree.map(lambda x: x.requires_grad_(), doubles(params))
  patches = doubles(patches_of(batch["image"]))
  logits = dense(p["head"], by_layers(p, patches, out["masked"]))
  assert_close(out["logits"], logits.detach())
  truth = torch.arange(12).repeat(4)
  loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), truth)
  np.testing.assert_allclose(out["loss"].value(), loss.item(), rtol=1e-5)
  right = (logits.argmax(-1) == torch.arange(12)).double().mean()
  np.testing.assert_allclose(out["loss"].metrics["accuracy"].value(), right, rtol=1e-6)
  loss.backward()
  assert_close(out["gradients"], jax.tree.map(lambda x: x.grad.numpy(), p))
  nothing = np.zeros_like(out["masked"])
  assert_close(out["features"], by_layers(p, patches, nothing).detach())


def test_every_patch_counts_masked_or_not():
  out = outcome()[1](make_batch())
  assert out["masked"].sum(axis=1).tolist() == [9] * 4
  assert out["loss"].weight == 4 * 12
  valid = np.array([True, False, True, False])
  assert outcome()[1](make_batch(valid=valid))["loss"].weight == 2 * 12


def test_masked_patches_are_silent():
  """A masked patch changes its own logits alone, a visible one those of all."""
  batch = make_batch()
  out = outcome()[1](batch)

  def changed_by(n):
    grid = (np.arange(12) == n).reshape(3, 1, 4, 1) * np.ones((2, 1, 2))
    noise = np.random.default_rng(1).normal(size=(4, 6, 8, 1)).astype(np.float32)
    image = batch["image"] + grid.reshape(6, 8, 1).astype(np.float32) * noise
    after = outcome()[1]({**batch, "image": image})["logits"]
    return np.abs(after - out["logits"]).max(axis=2) > 1e-5

  for n in range(12):
    for b, changed in enumerate(changed_by(n)):
      own = np.arange(12) == n
      np.testing.assert_array_equal(changed, own if out["masked"][b, n] else True)


def test_features_do_not_depend_on_positions():
  """Patches that are moved keep their features."""
  batch = make_batch()
  features = outcome()[1](batch)["features"]
  turned = np.roll(batch["image"], 2, axis=2)  # by a column of patches
  moved = outcome()[1]({**batch, "image": turned})["features"]
  np.testing.assert_allclose(
    moved.reshape(4, 3, 4, 8), np.roll(features.reshape(4, 3, 4, 8), 1, 2), atol=1e-5
  )


def test_it_learns():
  # Pictures of their positions, so that there is something to learn in a moment.
  place = np.linspace(-1, 1, 48, dtype=np.float32).reshape(6, 8, 1)
  noise = np.random.default_rng(0).normal(size=(16, 6, 8, 1)).astype(np.float32)
  batch = {"image": 2 * place + 0.05 * noise, "index": np.arange(16)}
  values, _, _ = train(OBJECTIVE, batch, steps=40, learning_rate=2e-2)
  assert abs(np.mean(values[:3]) - np.log(12)) < 0.5
  assert np.mean(values[-5:]) < 0.6 * np.log(12)


def test_a_context_of_nothing_is_refused():
  with pytest.raises(UserError, match="mask_ratio=0.99 masks 12 of 12"):
    mp3(**IMAGES, mask_ratio=0.99)
