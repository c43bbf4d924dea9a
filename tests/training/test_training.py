"""One step on any mesh, in any number of microbatches, gives the same losses."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import maskjax as mj
from maskjax import networks, sharding
from maskjax.training.checkpoints import Checkpoints


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


@functools.cache
def parts(**options):
  objective = mj.systems.mae(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder=dict(width=32, depth=1, heads=4),
    decoder=dict(width=16, depth=1, heads=2),
    **options,
  )
  data = mj.data.Pipeline(
    source=mj.data.digits(), batch_size=32, transforms=[mj.data.to_float]
  )
  return objective, data


def losses(mesh_axes, devices=8, **keywords):
  objective, data = parts()
  writer = Losses()
  state = mj.fit(
    objective,
    data,
    optimizer=mj.training.adamw(learning_rate=1e-2, num_steps=5, clip_norm=1.0),
    num_steps=5,
    mesh=sharding.make_mesh(**mesh_axes, devices=jax.devices()[:devices]),
    writer=writer,
    log_every=1,
    **keywords,
  )
  return writer.values, state


@functools.cache
def alone():
  return losses({}, devices=1)[0]


@pytest.mark.parametrize(
  "axes",
  [
    dict(data=8),
    dict(data=1, fsdp=8),
    dict(data=2, fsdp=2, tensor=2),
  ],
  ids=str,
)
def test_any_mesh_same_losses(axes):
  values, state = losses(axes)
  np.testing.assert_allclose(values, alone(), rtol=1e-5)
  kernel = state.params["encoder"]["transformer"]["block_0"]["mlp"]["up"]["kernel"]
  parts_of_it = axes.get("fsdp", 1) * axes.get("tensor", 1)
  assert kernel.addressable_shards[0].data.size * parts_of_it == kernel.size
  moment = next(
    leaf
    for path, leaf in jax.tree.leaves_with_path(state.opt_state)
    if sharding.path_name(path).endswith("block_0/mlp/up/kernel")
  )
  assert moment.sharding == kernel.sharding


@pytest.mark.parametrize(("microbatches", "devices"), [(4, 1), (2, 8)])
def test_any_number_of_microbatches_same_losses(microbatches, devices):
  found, _ = losses({}, devices=devices, microbatches=microbatches)
  np.testing.assert_allclose(found, alone(), rtol=1e-5)


def test_losses_fall():
  assert alone()[-1] < 0.9 * alone()[0]


def test_a_batch_that_does_not_divide_is_refused():
  with pytest.raises(mj.UserError, match="batch_size=32: expected a multiple of 24"):
    losses(dict(data=8), microbatches=3)


def test_a_mesh_that_is_not_the_devices_is_refused():
  with pytest.raises(mj.UserError, match="multiply to the 8 devices"):
    sharding.make_mesh(data=3)


def test_ema_follows_the_parameters():
  _, state = losses({}, devices=1, ema_decay=0.5)
  old, new = (state.ema["encoder"]["cls"], state.params["encoder"]["cls"])
  assert not np.array_equal(old, new)
  assert networks.of_state(ConfigDict({"eval": {}}), None, state).params is state.ema


def test_a_loss_that_is_no_number_names_its_step():
  objective, data = parts()

  @dataclasses.dataclass(frozen=True)
  class Breaks:
    def init(self, key, batch):
      return objective.init(key, batch)

    def loss(self, variables, batch, step):
      loss = objective.loss(variables, batch, step)
      bad = variables.params["encoder"]["cls"].sum() * np.nan
      return dataclasses.replace(loss, sum=loss.sum + bad)

  with pytest.raises(mj.RunError, match="step 1: loss is nan"):
    mj.fit(
      Breaks(),
      data,
      optimizer=mj.training.adamw(learning_rate=1e-3, num_steps=5),
      num_steps=5,
    )


@dataclasses.dataclass
class Line:
  """One weight; the loss is its distance from 3, so that no step takes long."""

  def init(self, key, batch):
    return mj.objectives.Variables({"kernel": np.zeros((8, 8), np.float32)})

  def loss(self, variables, batch, step):
    errors = (variables.params["kernel"] - 3.0) ** 2
    return mj.losses.Loss.of(mj.losses.Mean.of(errors))


class Every:
  """A writer that keeps all numbers."""

  def __init__(self):
    self.values = {}

  def advance(self, step):
    pass

  def write(self, step, values):
    self.values.setdefault(step, {}).update(values)

  def image(self, step, name, picture):
    pass

  def close(self):
    pass


def fit_line(steps, *, mesh=None, bad=False, **keywords):
  class Source:
    def __len__(self):
      return 16

    def __getitem__(self, index):
      if bad and index in (2, 3, 7):
        raise ValueError("broken")
      return {"x": np.zeros(2, np.float32)}

  data = mj.data.Pipeline(
    source=Source(), batch_size=16, on_bad_record="skip" if bad else "raise"
  )
  return mj.fit(
    Line(),
    data,
    optimizer=mj.training.adamw(learning_rate=0.1, num_steps=6),
    num_steps=steps,
    mesh=mesh,
    log_every=1,
    **keywords,
  )


def test_bad_records_are_counted_in_the_metrics():
  writer = Every()
  fit_line(2, bad=True, writer=writer)
  # 2 and 3 give way to 4, and 7 to 8: two, one and one record were passed.
  assert [writer.values[step]["train/bad_records"] for step in (1, 2)] == [4, 8]


def test_the_newest_and_the_best_checkpoints_stay(tmp_path):
  held_out = {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: 4.0, 6: 7.0}

  def checkpoints():
    return Checkpoints(tmp_path / "checkpoints", keep=2)

  def evaluate(step, state):
    return {"eval/loss": held_out[step]}

  for steps, kept in ((5, [2, 4, 5]), (6, [2, 5, 6])):  # the second time resumes
    saves = checkpoints()
    fit_line(
      steps, checkpoints=saves, checkpoint_every=1, evaluate=evaluate, eval_every=1
    )
    saves.close()
    again = checkpoints()
    assert again.steps() == kept
    again.close()


def test_a_run_goes_on_with_another_mesh(tmp_path):
  whole = fit_line(6)
  for steps, axes in ((3, dict(fsdp=8)), (6, dict(data=2, fsdp=4))):
    saves = Checkpoints(tmp_path / "checkpoints")
    mesh = sharding.make_mesh(**{"data": 1, **axes})
    state = fit_line(steps, mesh=mesh, checkpoints=saves)
    saves.close()
  assert int(state.step) == 6
  np.testing.assert_allclose(state.params["kernel"], whole.params["kernel"], rtol=1e-6)


def test_a_profile_is_written_on_request(tmp_path):
  fit_line(4, profile=(2, 3), profile_folder=tmp_path / "profile")
  assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
