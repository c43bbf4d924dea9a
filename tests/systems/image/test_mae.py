"""MAE: 4 x 6 pixels in 2 x 3 patches of 2 x 2, of which 4 of 6 are masked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax import targets
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.objectives import Step, Variables
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems import mae

KEY = jax.random.key(7)


def without_mechanism(monkeypatch):
  """The loss is of all patches, those that are seen as well."""

  def loss_of_mask(self, variables, batch, mask, rngs=None):
    everywhere = self.apply(variables, self.patches(batch), mask, True, rngs=rngs)
    errors = self.error(everywhere, self.targets(batch))
    return Loss.of(Mean.of(errors, batch["valid"][:, None]))

  monkeypatch.setattr(Reconstruction, "loss_of_mask", loss_of_mask)
  compiled.cache_clear()


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make(**more):
  small = {"width": 8, "depth": 1, "heads": 2}
  return mae(
    **{
      "image_size": (4, 6),
      "channels": 3,
      "patch_size": 2,
      "encoder": small,
      "decoder": small,
      "mask_ratio": 0.6,
      **more,
    }
  )


def make_batch():
  return {
    "image": random(4, 4, 6, 3),
    "index": np.arange(4),
    "valid": np.ones(4, bool),
  }


@functools.cache
def compiled(norm_pix_loss):
  """Parameters, and all that an MAE computes of a batch, compiled once."""
  objective = make(norm_pix_loss=norm_pix_loss)

  @jax.jit
  def run(params, batch, key):
    mask = objective.mask(batch, Step(key))
    return {
      "mask": mask,
      "loss": objective.loss(Variables(params, ()), batch, Step(key)),
      "predictions": objective.apply(Variables(params), objective.patches(batch), mask),
      "images": objective.reconstruct(Variables(params), batch, Step(key)),
      "features": objective.features(Variables(params), batch),
      "targets": objective.targets(batch),
    }

  shapes = jax.eval_shape(objective.init, KEY, make_batch()).params
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes
  )
  return params, lambda params, batch, key=KEY: jax.device_get(run(params, batch, key))


def place_of(n):
  row, column = divmod(n, 3)
  return slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)


def paint(batch, masked, change):
  """Changes the pixels of the patches that `masked` names."""
  image = batch["image"].copy()
  for b, n in np.argwhere(masked):
    image[b][place_of(n)] = change(image[b][place_of(n)])
  return {**batch, "image": image}


def loss_by_hand(out, batch, norm_pix_loss):
  """The mean over masked patches of the mean over their pixels."""
  errors = []
  for b in np.flatnonzero(batch["valid"]):
    for k, n in enumerate(np.flatnonzero(out["mask"].masked[b])):
      target = batch["image"][b][place_of(n)].ravel().astype(np.float64)
      if norm_pix_loss:
        target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
      errors.append(((out["predictions"][b, k] - target) ** 2).mean())
  return np.mean(errors), len(errors)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_loss_by_hand(norm_pix_loss):
  params, run = compiled(norm_pix_loss)
  out = run(params, make_batch())
  assert out["mask"].masked.sum(axis=1).tolist() == [4] * 4
  expected, count = loss_by_hand(out, make_batch(), norm_pix_loss)
  assert out["loss"].weight == count == 16
  np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-6)


def test_rows_that_are_not_valid_do_not_count():
  params, run = compiled(True)
  batch = {**make_batch(), "valid": np.array([True, False, True, False])}
  batch["image"][~batch["valid"]] = 1e6
  out = run(params, batch)
  expected, count = loss_by_hand(out, batch, True)
  assert out["loss"].weight == count == 8
  np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-6)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_compares_masked_patches_alone(norm_pix_loss):
  """With an encoder that is blind, the loss can only change through its targets."""
  params, run = compiled(norm_pix_loss)
  params = jax.tree.map(lambda leaf: leaf.copy(), params)
  params["encoder"]["embed"]["kernel"][:] = 0
  batch = make_batch()
  before = run(params, batch)
  masked = before["mask"].masked
  visible = run(params, paint(batch, ~masked, lambda x: x[::-1] * 3 + 1))
  assert visible["loss"].sum == before["loss"].sum
  unmasked = run(params, paint(batch, masked, np.flip))
  assert abs(unmasked["loss"].sum / before["loss"].sum - 1) > 1e-3


def test_normalises_each_target_patch_by_itself():
  def change(norm_pix_loss):
    params, run = compiled(norm_pix_loss)
    before = run(params, make_batch())
    masked = before["mask"].masked
    after = run(params, paint(make_batch(), masked, lambda x: 3 * x + x.max()))
    return abs(after["loss"].value() / before["loss"].value() - 1)

  # 1e-6 beside a variance of about 1, and rounding.
  assert change(True) < 1e-5
  assert change(False) > 1


def test_predictions_follow_from_visible_patches_alone():
  params, run = compiled(True)
  batch = make_batch()
  before = run(params, batch)
  masked = before["mask"].masked
  blind = run(params, paint(batch, masked, lambda x: 1e3 * x[::-1] - 5))
  np.testing.assert_array_equal(blind["predictions"], before["predictions"])
  for b in range(4):
    one = np.zeros_like(masked)
    one[b, np.flatnonzero(~masked[b])[-1]] = True
    after = run(params, paint(batch, one, np.flip))["predictions"]
    changed = (after != before["predictions"]).any(axis=2)
    assert changed[b].all()
    assert not np.delete(changed, b, axis=0).any()


def test_masks_follow_the_key_and_the_index():
  params, run = compiled(True)
  masked = run(params, make_batch())["mask"].masked
  backwards = {**make_batch(), "index": np.arange(4)[::-1]}
  np.testing.assert_array_equal(run(params, backwards)["mask"].masked[::-1], masked)
  other = run(params, make_batch(), jax.random.key(8))["mask"].masked
  assert (other != masked).any()


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_reconstructions(norm_pix_loss):
  params, run = compiled(norm_pix_loss)
  batch = make_batch()
  out = run(params, batch)
  images = out["images"]
  assert set(images) == {"original", "masked", "reconstructed"}
  np.testing.assert_array_equal(images["original"], batch["image"])
  gray = batch["image"].astype(np.float64).mean()
  for b in range(4):
    masked_ids = np.flatnonzero(out["mask"].masked[b]).tolist()
    for n in range(6):
      true, seen, drawn = (
        images[name][b][place_of(n)].ravel()
        for name in ("original", "masked", "reconstructed")
      )
      if n not in masked_ids:
        np.testing.assert_array_equal(seen, true)
        np.testing.assert_allclose(drawn, true, atol=1e-6)
        continue
      np.testing.assert_allclose(seen, gray, atol=1e-6)
      expected = out["predictions"][b, masked_ids.index(n)]
      if norm_pix_loss:
        expected = expected * np.sqrt(true.var(ddof=1) + 1e-6) + true.mean()
      np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_features_see_everything():
  params, run = compiled(True)
  batch = make_batch()
  features = run(params, batch)["features"]
  assert features.shape == (4, 6, 8)
  for n in range(6):
    only = np.arange(6)[None] == [[n]] * 4
    change = run(params, paint(batch, only, np.flip))["features"] - features
    size = np.abs(change).max(axis=2)
    assert (size > 0).all()
    assert (size.argmax(axis=1) == n).all()  # and the features of patch n the most


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_targets_are_of_all_patches(norm_pix_loss):
  params, run = compiled(norm_pix_loss)
  batch = make_batch()
  expected = np.array(
    [[x[place_of(n)].ravel() for n in range(6)] for x in batch["image"]]
  )
  if norm_pix_loss:
    expected = np.asarray(targets.normalized_pixels(expected))
  np.testing.assert_allclose(run(params, batch)["targets"], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3), (4, 6, 1), (8, 12, 3)])
def test_refuses_images_of_other_shapes(shape):
  objective = make()
  batch = {"image": jnp.zeros((2, *shape))}
  found = "x".join(map(str, shape))
  with pytest.raises(UserError, match=f"images of {found}: expected 4x6x3"):
    objective.init(KEY, batch)
  with pytest.raises(UserError, match=f"images of {found}: expected 4x6x3"):
    objective.loss(Variables({}, ()), batch, Step(KEY))


def test_refuses_images_without_channels():
  with pytest.raises(UserError, match="images of 4x6: expected 4x6x3"):
    make().init(KEY, {"image": jnp.zeros((2, 4, 6))})


def test_systems_of_the_same_hyperparameters_are_equal():
  assert make() == make()
