"""ColorMAE: MAE under masks of filtered noise."""

import functools

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import maskjax as mj
from maskjax import keys, masking
from maskjax.masking import noise, samplers
from maskjax.objectives import Step
from maskjax.systems import colormae

COLORS = ("red", "blue", "green", "purple")
GRID, NUM_MASKED = (14, 12), 126


@functools.cache
def drawn(color, count=2048, grid=GRID, num_masked=NUM_MASKED):
  """Masks of a color: bool [count, rows, columns]."""
  sampler = getattr(samplers, color)
  draw = jax.jit(jax.vmap(lambda key: sampler(key, grid, num_masked)))
  return np.asarray(draw(jax.random.split(jax.random.key(0), count))).reshape(
    count, *grid
  )


def by_scipy(key, color, grid, num_masked, sigmas=(0.5, 2.0)):
  """The paper's equations 1 to 4, and where their noise is lowest."""
  margin = int(4 * sigmas[color != "blue"] + 0.5)
  white = np.asarray(jax.random.normal(key, [side + 2 * margin for side in grid]))
  fine, coarse = (gaussian_filter(white, sigma, mode="nearest") for sigma in sigmas)
  filtered = {
    "red": coarse,
    "blue": white - fine,
    "green": fine - coarse,
    "purple": white - (fine - coarse),
  }[color]
  window = filtered[margin:-margin, margin:-margin].ravel()
  masked = np.zeros(window.size, bool)
  masked[np.argsort(window)[:num_masked]] = True
  return masked


def without_mechanism(monkeypatch):
  """Masks as MAE's: without a filter, random ones."""
  for color in COLORS:
    monkeypatch.setattr(samplers, color, samplers.random)


@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.0])
def test_the_filter_is_scipys(sigma):
  margin = int(4 * sigma + 0.5)
  white = np.random.default_rng(0).normal(size=(9 + 2 * margin, 6 + 2 * margin))
  down, across = noise.blur(9, margin, sigma), noise.blur(6, margin, sigma)
  expected = gaussian_filter(white, sigma)[margin:-margin, margin:-margin]
  # Beside values of about 1; the weights are float32.
  np.testing.assert_allclose(down @ white @ across.T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("color", COLORS)
def test_the_masks_of_the_system_are_the_papers(color):
  """Drawn from the examples' keys, and so from nothing that MAE's could be."""
  objective = colormae(
    image_size=28, channels=1, patch_size=4, encoder="Ti", mask=color
  )
  batch = {"image": np.zeros((4, 28, 28, 1)), "index": np.array([3, 1, 900, 7])}
  key = jax.random.key(1)
  step = Step(key)
  masked = objective.mask(batch, step).masked
  example_keys = keys.example_keys(keys.named(key, "mask"), batch)
  for row, example_key in enumerate(example_keys):
    expected = by_scipy(example_key, color, (7, 7), 37)
    np.testing.assert_array_equal(masked[row], expected)
  assert (
    (
      masked
      != mj.systems.mae(image_size=28, channels=1, patch_size=4, encoder="Ti")
      .mask(batch, step)
      .masked
    )
    .any(axis=1)
    .all()
  )


@pytest.mark.parametrize("color", COLORS)
def test_the_filters_are_as_wide_as_the_system_is_given(color):
  """And no other width has the same masks; the paper's is the default."""
  sigmas = (0.7, 1.5)
  own = {"red": {"sigma": 1.5}, "blue": {"sigma": 0.7}}.get(color, {"sigmas": sigmas})
  tiny = {"image_size": 28, "channels": 1, "patch_size": 4, "encoder": "Ti"}
  key, batch = jax.random.key(1), {"index": np.arange(4)}
  masked = colormae(**tiny, mask={"name": color, **own}).mask(batch, Step(key)).masked
  papers = colormae(**tiny, mask=color).mask(batch, Step(key)).masked
  for row, example_key in enumerate(keys.example_keys(keys.named(key, "mask"), batch)):
    expected = by_scipy(example_key, color, (7, 7), 37, sigmas)
    np.testing.assert_array_equal(masked[row], expected)
    np.testing.assert_array_equal(
      papers[row], by_scipy(example_key, color, (7, 7), 37, (0.5, 2.0))
    )
  assert (masked != papers).any()


def test_green_is_the_systems_own_color():
  assert colormae(encoder="Ti").masking.sampler is masking.green
  assert colormae().masking.num_masked == 147


@pytest.mark.parametrize("color", COLORS)
def test_the_given_number_is_masked_everywhere_alike(color):
  masked = drawn(color)
  np.testing.assert_array_equal(masked.sum(axis=(1, 2)), NUM_MASKED)
  assert len(np.unique(masked, axis=0)) == len(masked)
  # Seven stds of the mean of 2048 draws; what is near the border is as far from
  # other noise as what is in the middle.
  off = abs(masked.mean(axis=0) - NUM_MASKED / masked[0].size)
  assert off.max() < 7 * 0.5 / np.sqrt(len(masked))


def spectrum(color):
  """Power at low, middle and high frequencies, over that of random masks."""
  vertical = np.fft.fftfreq(GRID[0])[:, None]
  frequency = np.hypot(vertical, np.fft.fftfreq(GRID[1]))
  bands = (0.01, 0.15), (0.2, 0.3), (0.45, 0.71)

  def power(masked):
    of_all = (abs(np.fft.fft2(masked)) ** 2).mean(axis=0)
    return [
      of_all[(low <= frequency) & (frequency <= high)].mean() for low, high in bands
    ]

  return np.divide(power(drawn(color)), power(drawn("random")))


def test_each_color_has_its_frequencies():
  low, middle, high = spectrum("red")
  assert low > 4 and low > middle > high and high < 0.4
  low, middle, high = spectrum("blue")
  assert low < 0.7 and low < middle < high and high > 1.2
  low, middle, high = spectrum("green")
  assert middle > 1.15 and middle > low > high and high < 0.9
  low, middle, high = spectrum("purple")
  assert low > 1.05 and middle < 0.8 and high > 1.1


@functools.cache
def trained():
  """Losses of a tiny ColorMAE on digits, one a step."""
  objective = colormae(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder=dict(width=16, depth=1, heads=2),
    decoder=dict(width=16, depth=1, heads=2),
    norm_pix_loss=False,
  )
  data = mj.data.Pipeline(
    source=mj.data.digits(), batch_size=32, transforms=[mj.data.to_float]
  )
  values = []

  class Writer(mj.metrics.Writers):
    def write(self, step, numbers):
      values.append(numbers["train/loss"])

  mj.fit(
    objective,
    data,
    optimizer=mj.training.adamw(learning_rate=1e-2, num_steps=60),
    num_steps=60,
    mesh=mj.sharding.make_mesh(devices=jax.devices()[:1]),
    writer=Writer(),
    log_every=10,
  )
  return values


def test_the_loss_falls():
  assert trained()[-1] < 0.7 * trained()[0]


@pytest.mark.parametrize(
  ("mask", "message"),
  [
    ("greem", "no 'greem'.*did you mean 'green'"),
    (dict(name="green", sigmas=(2.0, 0.5)), "sigmas=.*expected two, the smaller first"),
    (dict(name="purple", sigmas=(1.0,)), "sigmas=.*expected two, the smaller first"),
    (dict(name="red", sigma=0.0), "sigma=0.0: expected a positive number"),
    (dict(name="red", sigmas=(1.0, 2.0)), "'red' takes no 'sigmas'"),
  ],
)
def test_mistakes(mask, message):
  with pytest.raises(mj.UserError, match=message):
    objective = colormae(
      image_size=8, channels=1, patch_size=2, encoder="Ti", mask=mask
    )
    objective.init(jax.random.key(0), {"image": np.zeros((1, 8, 8, 1), np.float32)})
