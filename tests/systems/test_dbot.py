"""dBOT: MAE taught by the student of the stage before."""

import functools

import jax
import numpy as np
import optax
import pytest
from models.arrays import assert_close
from systems import taught
from systems.digits import held_out, train

from maskjax.errors import UserError
from maskjax.objectives import dbot
from maskjax.training import step as training

torch = taught.torch


def make(**more):
  keywords = {
    "teacher": {"name": "bootstrap", "stages": 2, "num_steps": 4},
    **taught.SHAPE,
    "encoder": taught.STUDENT,
    "decoder": {"width": 8, "depth": 1, "heads": 2},
    "drop_path": 0.0,
  }
  return dbot(**{**keywords, **more})


OBJECTIVE = make()


@pytest.fixture(name="case", scope="module")
def case_fixture():
  batch = taught.make_batch()
  return batch, *taught.make_variables(OBJECTIVE, batch)


def test_loss_is_that_of_torch_with_a_teacher_of_transformers(case, tmp_path):
  batch, params, extra = case
  theirs = taught.Theirs(
    OBJECTIVE.model.encoder, extra["teacher"]["encoder"], tmp_path / "teacher"
  )
  mask = OBJECTIVE.mask(batch, taught.KEY)
  predict = jax.jit(OBJECTIVE.model.apply)
  predictions = predict({"params": params}, OBJECTIVE.patches(batch), mask)
  with torch.no_grad():
    last = theirs.layers(batch["image"])[0][-1][:, 1:]  # not normalised
    # `forward_loss` of the authors: the unbiased variance, and a beta of 2.
    targets = (last - last.mean(-1, keepdim=True)) / (
      last.var(-1, keepdim=True) + 1e-6
    ).sqrt()
    expected = torch.nn.SmoothL1Loss(beta=2.0)(
      torch.tensor(np.array(predictions)), taught.picked(targets, mask.hidden_ids)
    )
  loss = taught.loss_of(OBJECTIVE)(params, extra, batch, taught.KEY)
  assert abs(loss.value() / expected.item() - 1) <= 1e-5
  assert loss.weight == 4 * 12


def test_defaults_are_the_papers():
  objective = dbot(teacher={"name": "bootstrap", "num_steps": 1600})
  assert (objective.num_hidden, objective.model.decoder.depth) == (147, 8)
  assert objective.teacher.stages == 2
  assert objective.model.encoder.options["drop_path"] == 0.2
  # The decoder predicts as many channels as the encoder has.
  assert objective.model.decoder.patch_dim == objective.model.encoder.width == 768


def same(one, other):
  leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(a, b) for a, b in leaves)


def test_students_become_teachers_and_begin_anew(case):
  """Four steps in two stages, one by one."""
  batch, *_ = case
  del batch["valid"]
  optimizer = optax.sgd(0.1)
  init = jax.jit(functools.partial(training.init_state, OBJECTIVE, optimizer))
  step = jax.jit(
    functools.partial(
      training.train_step, objective=OBJECTIVE, optimizer=optimizer, key=taught.KEY
    )
  )
  states = [jax.device_get(init(batch, taught.KEY))]
  for _ in range(4):
    states.append(jax.device_get(step(states[-1], batch)[0]))
  teachers = [state.extra["teacher"]["encoder"] for state in states]
  students = [state.params["encoder"] for state in states]
  # The first teacher is the random network that the student begins as, and stays so
  # until the end of the stage.
  assert same(teachers[0], students[0]) and same(teachers[1], teachers[0])
  assert not same(students[1], students[0])
  # Then it is the student after two steps, as a student that went on would have it.
  gone_on = make(teacher={"name": "bootstrap", "stages": 1, "num_steps": 4})
  alone = functools.partial(
    training.train_step, objective=gone_on, optimizer=optimizer, key=taught.KEY
  )
  after = jax.device_get(jax.jit(alone)(states[1], batch)[0])
  assert same(teachers[2], after.params["encoder"])
  assert not same(students[2], teachers[2])
  # The new student is random: no parameter but biases and scales is what it was.
  fresh, first = states[2].params, states[0].params
  for path, new in jax.tree.leaves_with_path(fresh):
    old = functools.reduce(lambda tree, key: tree[key.key], path, first)
    constant = path[-1].key in ("bias", "scale")
    assert np.array_equal(new, old) == constant, path
    assert constant or abs(new.std() / old.std() - 1) < 0.5, path
  # The second stage has one teacher, and its last student stays.
  assert same(teachers[3], teachers[2]) and same(teachers[4], teachers[2])
  assert not same(students[4], students[3])
  final = jax.device_get(jax.jit(alone)(states[3], batch)[0])
  assert same(final.params, states[4].params)


def test_other_teachers_never_restart(case):
  batch, *_ = case
  objective = make(teacher=taught.FEATURES_ALONE)
  assert objective.model.decoder.patch_dim == 4
  params, _ = taught.make_variables(objective, batch)
  assert objective.restart(params, np.int32(1), batch, taught.KEY) is params


def test_paths_are_dropped_in_training_alone(case):
  batch, params, extra = case
  dropping = make(drop_path=0.9)
  assert_close(
    jax.jit(dropping.evaluate)(params, extra, batch, taught.KEY).sum,
    taught.loss_of(OBJECTIVE)(params, extra, batch, taught.KEY).sum,
  )
  dropped = jax.jit(dropping.loss)(params, extra, batch, taught.KEY)
  kept = taught.loss_of(OBJECTIVE)(params, extra, batch, taught.KEY)
  assert abs(dropped.sum / kept.sum - 1) > 1e-3


def test_losses_fall_and_features_stay_apart():
  """And the same in two microbatches on two devices."""
  objective = make(
    teacher={"name": "bootstrap", "stages": 2, "num_steps": 60},
    encoder={"width": 16, "depth": 1, "heads": 2},
  )
  losses, state = train(objective, 60)
  for stage in (losses[:30], losses[30:]):
    assert stage[-5:].mean() < 0.8 * stage[:3].mean()
  features = jax.jit(objective.features)(jax.device_get(state.params), held_out())
  assert taught.effective_rank(features) > 1.6
  split, _ = train(objective, 60, devices=2, microbatches=2)
  np.testing.assert_allclose(split[:5], losses[:5], rtol=1e-5)


@pytest.mark.parametrize(
  "change, complaint",
  [
    ({"beta": -1}, "beta=-1: expected a number above 0"),
    ({"mask_ratio": 1.0}, "mask_ratio=1.0: expected"),
    (
      {"teacher": {"name": "bootstrap", "num_steps": 5}},
      "teacher.num_steps=5: expected the run's, a multiple of teacher.stages=2",
    ),
    (
      {"teacher": {"name": "bootstrap", "stages": 0, "num_steps": 5}},
      "teacher.stages=0: expected at least 1",
    ),
    ({"teacher": "bootstrap"}, "'bootstrap' is missing its 'num_steps'"),
  ],
)
def test_bad_hyperparameters_are_refused(change, complaint):
  with pytest.raises(UserError, match=complaint):
    make(**change)
