"""SimMIM: units of masked patches, and raw pixels behind mask tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image.simmims import KEY, make, make_batch

import maskjax as mj
from maskjax import config as configs
from maskjax.errors import UserError
from maskjax.masking import samplers
from maskjax.objectives import Step, Variables
from maskjax.systems import simmim
from maskjax.tokens import patchify, unpatchify

STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """Single patches are masked, not units."""
  monkeypatch.setattr(samplers, "aligned", lambda *drawn, unit: samplers.random(*drawn))


@functools.cache
def compiled(encoder_type):
  """Parameters, and all that a SimMIM computes of a batch, compiled once."""
  objective = make(encoder_type)

  @jax.jit
  def run(params, batch):
    variables, mask = Variables(params), objective.mask(batch, STEP)
    return {
      "mask": mask,
      "loss": objective.loss_of_mask(variables, batch, mask),
      "predictions": objective.apply(variables, objective.patches(batch), mask),
      "features": objective.features(variables, batch),
      "images": objective.reconstruct(variables, batch, STEP),
    }

  params = shaken(jax.eval_shape(objective.init, KEY, make_batch()).params)
  return params, lambda params, batch: jax.device_get(run(params, batch))


def units_of(masked, rows, side):
  """Whether each unit is masked, of masks all of whose units are of one kind."""
  cut = masked.reshape(-1, rows // side, side, rows // side, side)
  assert (cut == cut[:, :, :1, :, :1]).all()
  return cut[:, :, 0, :, 0].reshape(len(masked), -1)


@pytest.mark.parametrize(
  ("setting", "units", "count"),
  [("imagenet", 7, 30), ("imagenet_swin", 6, 22), ("imagenet_swinv2", 6, 22)],
)
def test_masks_are_the_papers(setting, units, count):
  """Of units of 32 x 32 pixels six tenths are masked, rounded up."""
  config = configs.load(f"configs/image/simmim.py:{setting}")
  hyperparameters = config.copy_and_resolve_references().objective.to_dict()
  assert hyperparameters.pop("name") == "simmim"
  objective = simmim(**hyperparameters)
  batch = {"index": jnp.arange(8)}
  masked = np.asarray(objective.mask(batch, STEP).masked)
  rows = objective.patches.grid[0]
  masked_units = units_of(masked, rows, rows // units)
  assert masked_units.shape == (8, units**2)
  np.testing.assert_array_equal(masked_units.sum(axis=1), count)
  assert len(np.unique(masked_units, axis=0)) == 8


@pytest.mark.parametrize("encoder_type", ["vit", "swin"])
def test_loss_is_the_mean_absolute_error_of_raw_masked_pixels(encoder_type):
  params, run = compiled(encoder_type)
  batch = make_batch()
  out = run(params, batch)
  assert out["mask"].masked.sum(axis=1).tolist() == [24] * 4
  seen = [0, 1, 3]  # the other is not valid
  truth = np.asarray(patchify(jnp.asarray(batch["image"]), 2))[seen]
  truth = truth[out["mask"].masked[seen]].reshape(3, 24, 12).astype(np.float64)
  expected = np.abs(out["predictions"][seen] - truth).mean()
  assert out["loss"].weight == 3 * 24
  np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-5)


@pytest.mark.parametrize("encoder_type", ["vit", "swin"])
def test_masked_patches_are_tokens_that_depend_on_no_pixel(encoder_type):
  params, run = compiled(encoder_type)
  batch = make_batch()
  before = run(params, batch)
  patches = patchify(jnp.asarray(batch["image"]), 2)
  masked = before["mask"].masked[..., None]
  other = jnp.where(masked, 100 * random(4, 36, 12, seed=1), patches)
  images = unpatchify(other, grid=(6, 6), patch_size=2)
  after = run(params, {**batch, "image": images})
  np.testing.assert_array_equal(after["predictions"], before["predictions"])
  token = params["encoder"]["mask_token"]
  changed = {**params, "encoder": {**params["encoder"], "mask_token": -token}}
  after = run(changed, batch)
  assert np.abs(after["predictions"] - before["predictions"]).max() > 0.1
  np.testing.assert_array_equal(after["features"], before["features"])
  assert set(params) == {"encoder", "head"}
  assert list(params["head"]) == ["bias", "kernel"]  # one linear layer, no decoder
  tokens, width = {"vit": (36, 8), "swin": (9, 16)}[encoder_type]
  assert before["features"].shape == (4, tokens, width)


@pytest.mark.parametrize("encoder_type", ["vit", "swin"])
def test_an_example_does_not_depend_on_its_batch(encoder_type):
  params, run = compiled(encoder_type)
  out = run(params, make_batch())
  turned = run(params, {name: rows[::-1] for name, rows in make_batch().items()})
  np.testing.assert_array_equal(turned["mask"].masked[::-1], out["mask"].masked)
  assert_close(turned["predictions"][::-1], out["predictions"])


def test_dropped_paths_are_of_training_alone():
  objective = make("swin", drop_path=0.9)
  batch = make_batch()
  params = shaken(jax.eval_shape(objective.init, KEY, batch).params)

  @jax.jit
  def both(params):
    trained = objective.loss(Variables(params), batch, STEP).value()
    return trained, objective.evaluate(Variables(params), batch, STEP).value()

  trained, evaluated = both(params)
  assert abs(trained - evaluated) > 1e-3
  assert objective.model.encoder.drops_paths
  assert not make().model.encoder.drops_paths


@pytest.mark.parametrize("encoder_type", ["vit", "swin"])
def test_reconstructions_show_units(encoder_type):
  params, run = compiled(encoder_type)
  images = run(params, make_batch())["images"]
  assert set(images) == {"original", "masked", "reconstructed"}
  same = (images["masked"] == images["original"]).all(axis=-1)
  assert (units_of(same, 12, 4).sum(axis=1) == 3).all()
  drawn = np.abs(images["reconstructed"] - images["original"]) < 1e-6
  np.testing.assert_array_equal(drawn.all(axis=-1), same)


# Learning


class Losses:
  """A writer that keeps the losses."""

  def __init__(self):
    self.values = []

  def advance(self, step):
    pass

  def write(self, step, values):
    self.values.append(values["train/loss"])

  def image(self, step, name, picture):
    pass

  def close(self):
    pass


def test_loss_falls():
  writer = Losses()
  mj.fit(
    simmim(
      image_size=8,
      channels=1,
      patch_size=2,
      encoder={"width": 16, "depth": 1, "heads": 2},
      mask_patch_size=4,
      mask_ratio=0.5,
    ),
    mj.data.Pipeline(
      source=mj.data.digits(), batch_size=32, transforms=[mj.data.to_float]
    ),
    optimizer=mj.training.adamw(learning_rate=1e-2, num_steps=40),
    num_steps=40,
    mesh=mj.sharding.make_mesh(devices=jax.devices()[:1]),
    writer=writer,
    log_every=1,
  )
  assert np.mean(writer.values[-10:]) < 0.6 * writer.values[0]


# Mistakes


@pytest.mark.parametrize(
  ("encoder_type", "change", "message"),
  [
    ("swim", {"encoder": "B"}, "encoder_type='swim': did you mean 'swin'"),
    ("vit", {"mask_patch_size": 3}, "mask_patch_size=3x3: expected a multiple of"),
    ("vit", {"mask_patch_size": 8}, "mask_patch_size=8x8.*divides image_size=12x12"),
    ("vit", {"mask_patch_size": 0}, "mask_patch_size=0x0"),
    ("vit", {"mask_ratio": 1.0}, "mask_ratio=1.0: expected a number"),
    ("vit", {"mask_ratio": 0.9}, "mask_ratio=0.9.*at least one of 9 units visible"),
    ("vit", {"drop_path": 1.0}, "drop_path=1.0"),
    ("vit", {"encoder": {"width": 8, "depths": (1,), "heads": 2}}, "encoder.depth"),
    ("swin", {"scan": True}, "scan=True: expected False with encoder_type='swin'"),
    ("swin", {"image_size": 10, "mask_patch_size": 2}, "image_size=10x10.*of 4x4"),
    ("swin", {"encoder": "XXL"}, "no Swin size 'XXL'"),
    ("swin", {"encoder": {"size": "T", "windows": 3}}, "encoder.windows: did you mean"),
    ("swin", {"encoder": {"size": "T", "window": 0}}, "encoder.window=0: expected an"),
    ("swin", {"encoder": {"width": 8, "heads": (2, 2)}}, "encoder.depths=None"),
    ("swin", {"encoder": {"size": "T", "heads": (3,)}}, r"encoder.heads=\(3,\)"),
    ("swin", {"encoder": {"size": "T", "heads": (3, 0)}}, "expected positive integers"),
    (
      "swin",
      {"encoder": {"width": 8, "depths": (1, 1), "heads": (3, 4)}},
      "3 does not divide 8",
    ),
    ("swin", {"remat": "some"}, "remat='some'"),
  ],
)
def test_hyperparameters_that_do_not_fit(encoder_type, change, message):
  with pytest.raises(UserError, match=message) as caught:
    make(encoder_type, **change)
  assert "\n" not in str(caught.value)
