"""mixup and CutMix against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.data import mixup_cutmix, smooth_labels
from maskjax.errors import UserError

BATCH, HEIGHT, WIDTH, CLASSES = 6, 12, 10, 6


@pytest.fixture
def batch():
  images = jax.random.normal(jax.random.key(1), (BATCH, HEIGHT, WIDTH, 3))
  return images, jnp.eye(BATCH, CLASSES)


def own_share(targets):
  """How much of its one-hot target each row has kept: one number for all."""
  shares = np.diagonal(np.asarray(targets))
  np.testing.assert_allclose(shares, shares[0], rtol=1e-6)
  return float(shares[0])


@pytest.mark.parametrize("seed", range(10))
def test_mixup(batch, seed):
  images, targets = batch
  mixed, soft = mixup_cutmix(jax.random.key(seed), images, targets, cutmix_alpha=0)
  share = own_share(soft)
  assert 0 <= share <= 1
  x, t = np.asarray(images), np.asarray(targets)
  for i in range(BATCH):
    partner = BATCH - 1 - i
    np.testing.assert_allclose(
      mixed[i], share * x[i] + (1 - share) * x[partner], atol=1e-5
    )
    np.testing.assert_allclose(
      soft[i], share * t[i] + (1 - share) * t[partner], atol=1e-6
    )


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_targets_weigh_the_area(batch, seed):
  images, targets = batch
  mixed, soft = mixup_cutmix(jax.random.key(seed), images, targets, mixup_alpha=0)
  x, mixed = np.asarray(images), np.asarray(mixed)
  own = (mixed == x).all(-1)
  partner = (mixed == x[::-1]).all(-1)
  assert (own ^ partner).all()
  # The box is one rectangle, the same in every image.
  assert (own == own[0]).all()
  rows, columns = (~own[0]).any(1), (~own[0]).any(0)
  np.testing.assert_array_equal(~own[0], rows[:, None] & columns[None])
  for line in (rows, columns):
    assert np.abs(np.diff(line.astype(int), prepend=0, append=0)).sum() in (0, 2)
  assert own_share(soft) == pytest.approx(own[0].mean(), abs=1e-6)
  np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)


def draw_shares(alphas, count=2000, **keywords):
  # Images of 64 pixels that distinguish CutMix (0 or 1 only) from mixup.
  images = jnp.stack([jnp.ones((64, 64, 1)), jnp.zeros((64, 64, 1))])
  keys = jax.random.split(jax.random.key(0), count)

  def one(key):
    mixed, soft = mixup_cutmix(key, images, jnp.eye(2), **alphas, **keywords)
    binary = ((mixed == 0) | (mixed == 1)).all()
    return soft[0, 0], binary & (soft[0, 0] < 1)

  return jax.tree.map(np.asarray, jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def test_mixup_shares_are_beta():
  shares, _ = draw_shares({"mixup_alpha": 0.4, "cutmix_alpha": 0})
  assert abs(shares.mean() - 0.5) < 0.05
  # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
  assert abs(shares.var() - 1 / (4 * 1.8)) < 0.01


def test_cutmix_boxes_are_as_large_as_drawn():
  shares, _ = draw_shares({"mixup_alpha": 0, "cutmix_alpha": 1.0})
  # A box of uniform area, its center uniform in the image: in one dimension a side
  # s loses s / 4 over the edge on average, so the area kept inside is that of
  # a * (1 - s / 4)**2 with a = s**2 uniform: 1/2 - 1/5 + 1/48.
  assert abs((1 - shares).mean() - (1 / 2 - 1 / 5 + 1 / 48)) < 0.02


def test_probabilities():
  alphas = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
  shares, cut = draw_shares(alphas, prob=0.5, switch_prob=0.3)
  assert abs((shares < 1).mean() - 0.5) < 0.05
  assert abs(cut.mean() - 0.15) < 0.03
  shares, _ = draw_shares(alphas, count=50, prob=0.0)
  assert (shares == 1).all()


def test_jit_and_dtypes(batch):
  images, targets = batch
  images = images.astype(jnp.bfloat16)
  mixed, soft = jax.jit(mixup_cutmix)(jax.random.key(0), images, targets)
  assert mixed.dtype == jnp.bfloat16 and mixed.shape == images.shape
  assert soft.dtype == jnp.float32 and soft.shape == targets.shape


def test_mistakes(batch):
  images, targets = batch
  key = jax.random.key(0)
  with pytest.raises(UserError, match="floating images, got uint8"):
    mixup_cutmix(key, images.astype(jnp.uint8), targets)
  with pytest.raises(UserError, match="floating targets, got int32"):
    mixup_cutmix(key, images, targets.astype(jnp.int32))


def test_nothing_is_mixed_without_an_alpha(batch):
  mixed = mixup_cutmix(jax.random.key(0), *batch, mixup_alpha=0, cutmix_alpha=0)
  jax.tree.map(np.testing.assert_array_equal, mixed, tuple(batch))


def test_smooth_labels():
  labels = np.array([2, 0])
  soft = smooth_labels(jnp.asarray(labels), num_classes=4, smoothing=0.2)
  expected = np.full((2, 4), 0.05)
  expected[[0, 1], labels] = 0.85
  assert soft.dtype == jnp.float32
  np.testing.assert_allclose(soft, expected, rtol=1e-6)
