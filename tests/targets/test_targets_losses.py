"""Targets and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax import targets
from maskjax.losses import (
  Loss,
  Mean,
  absolute_error,
  cross_entropy,
  smooth_l1,
  squared_error,
)

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


@pytest.mark.parametrize("cell_size", [None, (1, 2, 3)])
def test_pixels_may_have_any_number_of_sides(cell_size):
  clips = random(2, 4, 4, 6, 1)
  target = targets.Pixels(
    patch_size=(2, 2, 3), channels=1, normalized=True, cell_size=cell_size
  )
  values = target(clips)
  assert values.shape == (2, 8, target.size) and target.size == 12
  cell = clips[1, 2 : 2 + (cell_size or target.patch_size)[0], 2:4, 3:6].reshape(-1)
  expected = (cell - cell.mean()) / np.sqrt(cell.var(ddof=1) + 1e-6)
  np.testing.assert_allclose(values[1, 7, : cell.size], expected, rtol=0, atol=1e-5)
  np.testing.assert_allclose(target.draw(values, clips), clips, rtol=0, atol=1e-6)


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
