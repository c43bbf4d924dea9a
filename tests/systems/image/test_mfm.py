"""MFM: masks against loops, spectra and losses against SciPy and torch."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from helpers.arrays import assert_close, random, shaken
from helpers.image import digits

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import mfm
from maskjax.systems.image.mfm import Mfm
from maskjax.systems.image.mfm.frequencies import (
  from_spectrum,
  low_frequencies,
  low_or_high,
  spectral_distance,
  spectrum,
)

torch = pytest.importorskip("torch")

VIT = {"width": 16, "depth": 1, "heads": 2}
CNN = {
  "name": "resnet",
  "widths": (8, 16),
  "depths": (1, 1),
  "bottleneck": False,
  "stem_stride": 1,
  "stem_width": 8,
}
KEY = jax.random.key(7)
MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)


def without_mechanism(monkeypatch):
  """No frequency is masked in what the encoder sees."""
  corrupted = Mfm.corrupted

  def whole(self, batch, step):
    return jnp.asarray(batch["image"]), corrupted(self, batch, step)[1]

  monkeypatch.setattr(Mfm, "corrupted", whole)


def make(**more):
  tiny = {"image_size": (4, 6), "patch_size": 2, "encoder": VIT, "radius": 1.5}
  return mfm(**{"mean": MEAN, "std": STD, **tiny, **more})


def make_batch():
  pixels = np.random.default_rng(0).uniform(size=(6, 4, 6, 3))
  return {
    "image": ((pixels - MEAN) / STD).astype(np.float32),
    "index": np.arange(6),
    "valid": np.array([True] * 5 + [False]),
  }


def corrupted(images, masked):
  """By the authors' order: mask from 0 to 1, cut off, normalize."""
  mean, std = jnp.array(MEAN), jnp.array(STD)
  visible = jnp.where(masked[..., None], 0, spectrum(images * std + mean))
  return (jnp.clip(from_spectrum(visible), 0, 1) - mean) / std


@functools.cache
def compiled(cnn=False, **more):
  """An MFM with random variables, and all that it computes of a batch."""
  objective = make(**({"encoder": CNN} if cnn else {}), **more)
  made = jax.eval_shape(objective.init, KEY, make_batch())
  extra = jax.tree.map(lambda x: 0.5 + np.abs(random(*x.shape)), made.extra)
  params = shaken(made.params)

  @jax.jit
  def run(params, extra, batch, key):
    step = Step(key)
    images, masked = objective.corrupted(batch, step)
    variables = Variables(params, extra)
    return {
      "corrupted": images,
      "masked": masked,
      "predicted": objective.predictions(variables, corrupted(batch["image"], masked)),
      "loss": objective.loss(variables, batch, step),
      "evaluated": objective.evaluate(variables, batch, step),
      "images": objective.reconstruct(variables, batch, step),
      "features": objective.features(variables, batch),
    }

  def all_of(batch, key=KEY, params=params, extra=extra):
    return SimpleNamespace(**jax.device_get(run(params, extra, batch, key)))

  return all_of


def shifted(images):
  """By SciPy, in float64."""
  frequencies = scipy.fft.fft2(images.astype(np.float64), axes=(1, 2), norm="ortho")
  return scipy.fft.fftshift(frequencies, axes=(1, 2))


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (28, 28)])
def test_spectra_are_scipys_and_torchs(size):
  images = random(2, *size, 3)
  found = np.asarray(jax.jit(spectrum)(images))
  theirs = torch.fft.fft2(torch.from_numpy(images), dim=(1, 2), norm="ortho")
  theirs = torch.fft.fftshift(theirs, dim=(1, 2)).numpy()
  for expected in (shifted(images), theirs):
    size_of_it = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * size_of_it)
  assert_close(jax.jit(from_spectrum)(found), images)
  center = found[:, size[0] // 2, size[1] // 2]
  np.testing.assert_allclose(
    center.real, images.sum(axis=(1, 2)) / np.sqrt(size[0] * size[1]), rtol=1e-4
  )


@pytest.mark.parametrize("size", [(4, 6), (7, 5), (28, 28)])
@pytest.mark.parametrize("radius", [1, 1.5, 2.0])
def test_low_frequencies_are_near_the_center(size, radius):
  found = low_frequencies(size, radius)
  for r in range(size[0]):
    for c in range(size[1]):
      near = (r - size[0] // 2) ** 2 + (c - size[1] // 2) ** 2 < radius**2
      assert found[r, c] == near


def test_an_image_loses_its_low_frequencies_or_its_high_ones():
  keys = jax.random.split(KEY, 400)
  draw = functools.partial(low_or_high, size=(4, 6), radius=1.5, low_pass=0.3)
  masked = np.asarray(jax.vmap(draw)(keys))
  low = low_frequencies((4, 6), 1.5)
  keeps_low = (masked == ~low).all(axis=(1, 2))
  loses_low = (masked == low).all(axis=(1, 2))
  assert (keeps_low ^ loses_low).all()
  # Four standard deviations.
  assert abs(keeps_low.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)


def test_what_the_encoder_sees_is_an_image_without_the_masked_frequencies():
  batch, out = make_batch(), compiled()(make_batch())
  low = low_frequencies((4, 6), 1.5)
  kinds = {bool((masked == low).all()) for masked in out.masked}
  assert kinds == {True, False}  # of one batch
  seen = np.where(out.masked[..., None], 0, shifted(batch["image"] * STD + MEAN))
  back = scipy.fft.ifft2(
    scipy.fft.ifftshift(seen, axes=(1, 2)), axes=(1, 2), norm="ortho"
  )
  # The highest frequency of an even side has no conjugate; nothing imaginary is left.
  assert np.abs(back.imag).max() < 1e-12
  below = (back.real < 0).mean()
  assert below > 0.1  # what is cut off
  assert_close(out.corrupted, (back.real.clip(0, 1) - MEAN) / STD)
  other = compiled()({**batch, "index": batch["index"][::-1]})
  np.testing.assert_array_equal(other.masked, out.masked[::-1])


def test_images_are_cut_off_where_their_normalization_is_given():
  """And else are as the masked spectrum has them, as in older runs."""
  objective, batch = make(mean=None, std=None), make_batch()

  @jax.jit
  def both(batch):
    images, masked = objective.corrupted(batch, Step(KEY))
    visible = jnp.where(masked[..., None], 0, spectrum(batch["image"]))
    return images, from_spectrum(visible)

  assert_close(*both(batch))


def test_the_papers_vit_has_learned_positions_and_no_biases_of_keys():
  made = jax.eval_shape(make().init, KEY, make_batch()).params["encoder"]
  assert made["positions"].shape == (6, 16)
  attention = made["transformer"]["block_0"]["attention"]
  assert "bias" in attention["query"] and "bias" not in attention["key"]
  fixed = make(encoder={**VIT, "positions": "sincos"})
  made = jax.eval_shape(fixed.init, KEY, make_batch()).params["encoder"]
  assert "positions" not in made


def images_of(patches):
  """Puts patches of 2 x 2 pixels back by hand: [B, 6, 12] to [B, 4, 6, 3]."""
  images = np.zeros((len(patches), 4, 6, 3))
  for n in range(6):
    row, column = divmod(n, 3)
    patch = np.s_[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    images[patch] = patches[:, n].reshape(-1, 2, 2, 3)
  return images


@pytest.mark.parametrize(("gamma", "focal"), [(1.0, 0.0), (2.0, 1.0)])
def test_loss_by_hand(gamma, focal):
  """The mean distance of masked frequencies, of all channels."""
  more = {"gamma": gamma, "focal": focal} if focal else {}
  batch, out = make_batch(), compiled(**more)(make_batch())
  apart = np.abs(shifted(images_of(out.predicted)) - shifted(batch["image"]))
  weights = apart**focal / (apart**focal).max(axis=(1, 2), keepdims=True)
  errors = (weights if focal else 1) * apart**gamma
  counts = out.masked & batch["valid"][:, None, None]
  expected = errors[counts].mean()
  for loss in (out.loss, out.evaluated):
    assert loss.weight == 3 * counts.sum()
    np.testing.assert_allclose(loss.value(), expected, rtol=1e-5)
  everywhere = errors[batch["valid"]].mean()
  assert abs(everywhere / expected - 1) > 1e-3


def test_gradient_of_the_distance_is_torchs():
  predictions, truth, weights = (random(2, 4, 6, 3, seed=i) for i in range(3))

  def loss(images):
    distances = spectral_distance(spectrum(images), spectrum(truth), focal=1.0)
    return (distances * weights).sum()

  theirs = torch.from_numpy(predictions).double().requires_grad_()
  apart = torch.fft.fft2(theirs - torch.from_numpy(truth), dim=(1, 2), norm="ortho")
  apart = torch.fft.fftshift(apart, dim=(1, 2)).abs()
  focus = (apart / apart.amax(dim=(1, 2), keepdim=True)).detach()
  (focus * apart * torch.from_numpy(weights)).sum().backward()
  assert_close(jax.jit(jax.grad(loss))(predictions), theirs.grad.numpy())


def test_a_perfect_prediction_has_a_finite_gradient():
  truth = spectrum(random(1, 4, 4, 1))
  gradient = jax.jit(jax.grad(lambda p: spectral_distance(p, truth).sum()))(truth)
  assert np.isfinite(gradient).all()


def test_reconstructions_change_the_masked_frequencies_alone():
  batch, out = make_batch(), compiled()(make_batch())
  np.testing.assert_array_equal(out.images["original"], batch["image"])
  np.testing.assert_allclose(out.images["masked"], out.corrupted, atol=1e-6)
  drawn, predicted = shifted(out.images["reconstructed"]), images_of(out.predicted)
  expected = np.where(
    out.masked[..., None], shifted(predicted), shifted(batch["image"])
  )
  np.testing.assert_allclose(drawn, expected, atol=1e-5)
  low, high = batch["image"].min(), batch["image"].max()
  spectra = {
    "target": shifted(batch["image"]),
    "seen": np.where(out.masked[..., None], 0, shifted(batch["image"])),
    "predicted": expected,
  }
  strongest = np.log1p(abs(spectra["target"])).max(axis=(1, 2, 3), keepdims=True)
  for name, frequencies in spectra.items():
    bright = np.clip(np.log1p(abs(frequencies)) / strongest, 0, 1)
    expected = low + (high - low) * bright
    np.testing.assert_allclose(out.images[name], expected, rtol=1e-5, atol=1e-5)


def test_a_cnn_predicts_the_patch_at_each_position_of_its_last_stage():
  batch, out = make_batch(), compiled(cnn=True)(make_batch())
  assert out.predicted.shape == (6, 2 * 3, 2 * 2 * 3)
  assert out.features.shape == (6, 2 * 3, 16)
  assert set(out.loss.sums) == {"moments"}
  # In training by its own statistics, else by running averages.
  assert abs(out.loss.value() / out.evaluated.value() - 1) > 1e-3
  apart = np.abs(shifted(images_of(out.predicted)) - shifted(batch["image"]))
  counts = out.masked & batch["valid"][:, None, None]
  np.testing.assert_allclose(out.evaluated.value(), apart[counts].mean(), rtol=1e-5)


@pytest.mark.parametrize("encoder", [VIT, CNN], ids=["vit", "cnn"])
def test_losses_fall(encoder):
  tiny = {"image_size": 8, "channels": 1, "patch_size": 2, "radius": 2}
  objective = mfm(mean=0.0, std=1.0, encoder=encoder, **tiny)
  losses, state = digits.train(objective, 40)
  assert losses[-10:].mean() < 0.9 * losses[:10].mean()
  batch = digits.held_out(64)
  variables = Variables(state.params, state.extra)
  features = jax.jit(objective.features)(variables, batch).mean(axis=1)
  assert np.asarray(features).std(axis=0).max() > 1e-2


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"radius": 0}, "radius=0: expected more than 0 and at most 2"),
    ({"radius": 3}, "radius=3: expected more than 0 and at most 2"),
    ({"low_pass": 1.5}, "low_pass=1.5: expected a probability"),
    ({"gamma": 0.0}, "gamma=0.0: expected a number above 0"),
    ({"focal": -1.0}, "focal=-1.0: expected at least 0"),
    ({"mean": (0.5, 0.5)}, "mean=.*expected a number, or one for each of channels=3"),
    ({"std": None}, "std=None: expected a number"),
    ({"std": 0.0}, "std=0.0: expected numbers above 0"),
    ({"encoder": "resnet5"}, "no ViT size 'resnet5'"),
    ({"encoder": CNN, "patch_size": 1}, "patch_size=1: expected 2, the stride"),
    ({"encoder": CNN, "scan": True}, "scan: expected none"),
    ({"encoder": CNN, "remat": "full"}, "remat: expected none"),
  ],
  ids=str,
)
def test_hyperparameters_that_do_not_fit_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    make(**wrong)


def test_images_of_other_shapes_are_refused():
  with pytest.raises(UserError, match="images of 6x4x3: expected 4x6x3"):
    make().loss(Variables({}), {"image": jnp.zeros((2, 6, 4, 3))}, Step(KEY))
