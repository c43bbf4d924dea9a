"""Targets and losses, and MAE's loss that is made of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax import targets
from maskjax.errors import UserError
from maskjax.losses import (
  Loss,
  Mean,
  absolute_error,
  cross_entropy,
  smooth_l1,
  squared_error,
)
from maskjax.objectives import Step, Variables
from maskjax.systems import mae

torch = pytest.importorskip("torch")


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_normalized_pixels_are_the_papers():
  """`models_mae.py`, forward_loss, with torch.var's unbiased default."""
  patches = random(2, 5, 6)
  patches[0, :2] *= 1e-3  # shows what is added to the variance
  patches[1, 0] = 0.25
  theirs = torch.from_numpy(patches).double()
  mean = theirs.mean(dim=-1, keepdim=True)
  var = theirs.var(dim=-1, keepdim=True)
  expected = (theirs - mean) / (var + 1.0e-6) ** 0.5
  ours = targets.normalized_pixels(jnp.asarray(patches))
  # Values of up to 2, to a few units in the last place.
  np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-6)
  assert targets.normalized_pixels(jnp.asarray(patches, jnp.bfloat16)).dtype == (
    jnp.float32
  )


@pytest.mark.parametrize("normalized", [False, True])
def test_pixels_are_drawn_as_they_were(normalized):
  images = random(2, 4, 6, 3)
  target = targets.Pixels(patch_size=(2, 3), channels=3, normalized=normalized)
  values = target(images)
  assert values.shape == (2, 4, target.size) and target.size == 18
  np.testing.assert_allclose(target.draw(values, images), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", [[1, 2, 4], [5, 1, 1]])
def test_means_of_uneven_parts_add_up(split):
  values = random(7, 3) + 5 * np.arange(7)[:, None].astype(np.float32)
  where = np.random.default_rng(1).random((7, 3)) < 0.5
  ends = np.cumsum(split)
  parts = [
    Mean.of(jnp.asarray(values[a:b]), jnp.asarray(where[a:b]))
    for a, b in zip(ends - split, ends, strict=True)
  ]
  total = parts[0] + parts[1] + parts[2]
  assert float(total.weight) == where.sum()
  expected = values[where].astype(np.float64).mean()
  # Sums of about a dozen float32 numbers.
  np.testing.assert_allclose(total.value(), expected, rtol=1e-6)
  means = [float(part.value()) for part in parts]
  assert abs(np.mean(means) - expected) > 0.1  # what adding sums is for
  loss = jax.tree.map(lambda *x: sum(x), *[Loss.of(part, again=part) for part in parts])
  np.testing.assert_allclose(loss.value(), expected, rtol=1e-6)
  np.testing.assert_allclose(loss.metrics["again"].value(), expected, rtol=1e-6)


def test_mean_of_everything_and_of_rows():
  values = random(3, 4)
  assert float(Mean.of(jnp.asarray(values)).weight) == 12
  rows = Mean.of(jnp.asarray(values), jnp.array([True, False, True])[:, None])
  assert float(rows.weight) == 8
  np.testing.assert_allclose(rows.value(), values[[0, 2]].mean(), rtol=1e-6)


def test_mean_of_nothing_is_zero_and_so_is_its_gradient():
  def value(x):
    return Mean.of(x, jnp.zeros(3, bool)).value()

  number, gradient = jax.value_and_grad(value)(jnp.array([1.0, jnp.inf, jnp.nan]))
  assert float(number) == 0
  np.testing.assert_array_equal(gradient, [0, 0, 0])


def test_means_are_summed_in_float32():
  # 1000 ones are not 1000 in bfloat16, nor 257 of them.
  mean = Mean.of(jnp.ones(257, jnp.bfloat16))
  assert float(mean.sum) == float(mean.weight) == 257


def test_squared_error():
  predictions, truth = random(2, 3, 5), random(2, 3, 5, seed=1)
  expected = ((predictions.astype(np.float64) - truth) ** 2).mean(axis=-1)
  ours = squared_error(jnp.asarray(predictions), jnp.asarray(truth))
  np.testing.assert_allclose(ours, expected, rtol=1e-6)
  half = squared_error(jnp.bfloat16([1.0, 1.0]), jnp.float32([1.001, 1.001]))
  np.testing.assert_allclose(half, 1e-6, rtol=1e-3)  # the type of neither rounds it
  with pytest.raises(AssertionError, match="shape"):
    squared_error(jnp.zeros((2, 3)), jnp.zeros((2, 1)))


@pytest.mark.parametrize("beta", [1.0, 2.0, 0.3])
def test_smooth_l1_is_torchs(beta):
  predictions, truth = 2 * random(2, 3, 50), random(2, 3, 50, seed=1)
  theirs = torch.nn.functional.smooth_l1_loss(
    *(torch.from_numpy(x).double() for x in (predictions, truth)),
    beta=beta,
    reduction="none",
  )
  ours = smooth_l1(jnp.asarray(predictions), jnp.asarray(truth), beta=beta)
  np.testing.assert_allclose(ours, theirs.mean(dim=-1).numpy(), rtol=1e-6)
  half = smooth_l1(jnp.bfloat16([1.0, 1.0]), jnp.float32([1.001, 1.001]))
  np.testing.assert_allclose(half, 0.5e-6, rtol=1e-3)


def test_absolute_error():
  predictions, truth = random(2, 3, 5), random(2, 3, 5, seed=1)
  expected = np.abs(predictions.astype(np.float64) - truth).mean(axis=-1)
  ours = absolute_error(jnp.asarray(predictions), jnp.asarray(truth))
  np.testing.assert_allclose(ours, expected, rtol=1e-6)
  half = absolute_error(jnp.bfloat16([1.0, 1.0]), jnp.float32([1.001, 1.001]))
  np.testing.assert_allclose(half, 1e-3, rtol=1e-3)  # the type of neither rounds it
  with pytest.raises(AssertionError, match="shape"):
    absolute_error(jnp.zeros((2, 3)), jnp.zeros((2, 1)))


def test_features_are_normalised_as_torch_normalises_them():
  features = 3 * random(2, 3, 8) + 20
  features[0, 0] = 0.25  # no std at all
  theirs = torch.from_numpy(features).double()
  expected = torch.nn.functional.layer_norm(theirs, (8,), eps=1e-6).numpy()
  # float32 keeps a millionth of the mean, which is seven stds.
  ours = targets.whitened(jnp.asarray(features))
  np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
  assert targets.whitened(jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32
  features[0, 1] = 0
  theirs = torch.from_numpy(features).double()
  expected = torch.nn.functional.normalize(theirs, dim=-1).numpy()
  np.testing.assert_allclose(targets.unit(jnp.asarray(features)), expected, rtol=1e-6)


def test_cross_entropy_is_torchs():
  logits = 5 * random(4, 3, 6)
  logits[0, 0] = [1e4, 0, -1e4, 0, 0, 0]  # overflows an exponential
  soft = np.random.default_rng(1).dirichlet(np.ones(6), (4, 3)).astype(np.float32)
  expected = torch.nn.functional.cross_entropy(
    torch.from_numpy(logits).double().movedim(-1, 1),
    torch.from_numpy(soft).double().movedim(-1, 1),
    reduction="none",
  )
  ours = cross_entropy(jnp.asarray(logits), jnp.asarray(soft))
  np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-6)
  assert cross_entropy(jnp.zeros(3, jnp.bfloat16), jnp.ones(3) / 3).dtype == jnp.float32


# MAE: 4 x 6 pixels in 2 x 3 patches of 2 x 2, of which 4 of 6 are masked.

KEY = jax.random.key(7)


def make_mae(**more):
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
  objective = make_mae(norm_pix_loss=norm_pix_loss)

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
def test_mae_loss_by_hand(norm_pix_loss):
  params, run = compiled(norm_pix_loss)
  out = run(params, make_batch())
  assert out["mask"].masked.sum(axis=1).tolist() == [4] * 4
  expected, count = loss_by_hand(out, make_batch(), norm_pix_loss)
  assert out["loss"].weight == count == 16
  np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-6)


def test_mae_rows_that_are_not_valid_do_not_count():
  params, run = compiled(True)
  batch = {**make_batch(), "valid": np.array([True, False, True, False])}
  batch["image"][~batch["valid"]] = 1e6
  out = run(params, batch)
  expected, count = loss_by_hand(out, batch, True)
  assert out["loss"].weight == count == 8
  np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-6)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_mae_compares_masked_patches_alone(norm_pix_loss):
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


def test_mae_normalises_each_target_patch_by_itself():
  def change(norm_pix_loss):
    params, run = compiled(norm_pix_loss)
    before = run(params, make_batch())
    masked = before["mask"].masked
    after = run(params, paint(make_batch(), masked, lambda x: 3 * x + x.max()))
    return abs(after["loss"].value() / before["loss"].value() - 1)

  # 1e-6 beside a variance of about 1, and rounding.
  assert change(True) < 1e-5
  assert change(False) > 1


def test_mae_predictions_follow_from_visible_patches_alone():
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


def test_mae_masks_follow_the_key_and_the_index():
  params, run = compiled(True)
  masked = run(params, make_batch())["mask"].masked
  backwards = {**make_batch(), "index": np.arange(4)[::-1]}
  np.testing.assert_array_equal(run(params, backwards)["mask"].masked[::-1], masked)
  other = run(params, make_batch(), jax.random.key(8))["mask"].masked
  assert (other != masked).any()


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_mae_reconstructions(norm_pix_loss):
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


def test_mae_features_see_everything():
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
def test_mae_targets_are_of_all_patches(norm_pix_loss):
  params, run = compiled(norm_pix_loss)
  batch = make_batch()
  expected = np.array(
    [[x[place_of(n)].ravel() for n in range(6)] for x in batch["image"]]
  )
  if norm_pix_loss:
    expected = np.asarray(targets.normalized_pixels(expected))
  np.testing.assert_allclose(run(params, batch)["targets"], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3), (4, 6, 1), (8, 12, 3)])
def test_mae_refuses_images_of_other_shapes(shape):
  objective = make_mae()
  batch = {"image": jnp.zeros((2, *shape))}
  found = "x".join(map(str, shape))
  with pytest.raises(UserError, match=f"images of {found}: expected 4x6x3"):
    objective.init(KEY, batch)
  with pytest.raises(UserError, match=f"images of {found}: expected 4x6x3"):
    objective.loss(Variables({}, ()), batch, Step(KEY))


def test_mae_refuses_images_without_channels():
  with pytest.raises(UserError, match="images of 4x6: expected 4x6x3"):
    make_mae().init(KEY, {"image": jnp.zeros((2, 4, 6))})


def test_maes_of_the_same_hyperparameters_are_equal():
  assert make_mae() == make_mae()
