"""Systems outside of the package, in one short file each."""

from pathlib import Path

import jax
import numpy as np
import pytest
from toys import clip_mae, late_spectra

import maskjax as mj
from maskjax import resolve
from maskjax.objectives import Step, Variables, abilities_of

KEY = jax.random.key(0)


def arrays():
  """Digits, and clips in which they move down, a pixel each time."""
  source = mj.data.digits()
  images = np.stack([source[i]["image"] for i in range(64)]) / np.float32(255)
  clips = np.stack([np.roll(images, t, axis=1) for t in range(4)], axis=1)
  return images, clips


def source_of(name):
  images, clips = arrays()
  return mj.data.arrays(**{name: images if name == "image" else clips})


TOYS = [
  pytest.param(late_spectra, late_spectra.late_spectra, "image", id="late_spectra"),
  pytest.param(clip_mae, clip_mae.clip_mae, "clip", id="clip_mae"),
]


@pytest.mark.parametrize(("module", "make", "name"), TOYS)
def test_it_is_short_and_learns_on_the_mesh_of_all_devices(module, make, name):
  assert len(Path(module.__file__).read_text().splitlines()) < 60
  data = mj.data.Pipeline(source=source_of(name), batch_size=32)
  losses = []

  class Writer:
    def advance(self, step):
      pass

    def write(self, step, values):
      losses.append(values["train/loss"])

    def close(self):
      pass

  mj.fit(
    make(),
    data,
    optimizer=mj.training.adamw(learning_rate=3e-3, num_steps=40),
    num_steps=40,
    writer=Writer(),
    log_every=10,
  )
  assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("module", "make", "name"), TOYS)
def test_it_is_named_by_its_import_path(module, make, name):
  path = f"toys.{make.__name__}:{make.__name__}"
  assert resolve.build(mj.objectives, path) == make()
  offered = abilities_of(make())
  assert offered.features is not None and offered.batch_shapes is not None


def test_the_layer_at_which_the_mask_token_enters_matters():
  images, _ = arrays()
  batch = {"image": images[:4]}
  first, later = (late_spectra.late_spectra(mask_token_layer=k) for k in (0, 1))
  variables = first.init(KEY, batch)
  token = 0.5 * jax.random.normal(KEY, (16,))
  params = {**variables.params}
  params["encoder"] = {**params["encoder"], "mask_token": token}
  losses = [
    float(o.loss(Variables(params), batch, Step(KEY)).value()) for o in (first, later)
  ]
  assert abs(losses[0] - losses[1]) > 1e-4


def test_all_times_of_a_masked_tube_are_masked():
  objective = clip_mae.clip_mae()
  _, clips = arrays()
  mask = objective.mask({"clip": clips[:4]}, Step(KEY))
  by_time = np.asarray(mask.masked).reshape(4, 2, 16)
  assert (by_time[:, 0] == by_time[:, 1]).all() and by_time[0, 0].sum() == 12
