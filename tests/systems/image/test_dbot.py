"""dBOT: MAE taught by the student of the stage before."""

import functools

import jax
import numpy as np
import optax
import pytest
from helpers.arrays import assert_close, random
from helpers.image import by_layers, taught
from helpers.image.digits import held_out, train

from maskjax import keys
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import dbot
from maskjax.tokens import sincos
from maskjax.training import step as training

torch = taught.torch


def make(**more):
  keywords = {
    "teacher": {"name": "bootstrap", "stages": 2},
    **taught.SHAPE,
    "encoder": {"width": 8, "depth": 1, "heads": 2},
    "decoder": {"width": 8, "depth": 1, "heads": 2},
    "drop_path": 0.0,
  }
  return dbot(**{**keywords, **more})


OBJECTIVE = make()
# What the paper has with CLIP as teacher.
SYMMETRIC = {
  "teacher": taught.FEATURES_ALONE,
  "decoder": None,
  "masked_patches": "token",
  "positions": "relative",
  "key_bias": False,
  "layer_scale": 0.1,
  "target": "features",
  "error": "cosine",
}
# The last of the first stage, and one in the middle of the second.
ENDS, GOES_ON = (Step(taught.KEY, number, num_steps=4) for number in (1, 2))


def without_mechanism(monkeypatch):
  """Students never begin anew: they go on under the teacher that they became."""

  def update(self, variables, batch, step, sums):
    teacher = self.teacher.update(variables.extra["teacher"], variables.params, step)
    return Variables(variables.params, {"teacher": teacher})

  monkeypatch.setattr(type(OBJECTIVE), "update", update)


@pytest.fixture(name="case", scope="module")
def case_fixture():
  batch = taught.make_batch()
  return batch, taught.make_variables(OBJECTIVE, batch)


def test_loss_is_that_of_torch_with_a_teacher_of_transformers(case, tmp_path):
  batch, variables = case
  params = variables.extra["teacher"]["encoder"]
  theirs = taught.Theirs(OBJECTIVE.model.encoder, params, tmp_path / "teacher")
  mask = OBJECTIVE.mask(batch, taught.STEP)
  predict = jax.jit(OBJECTIVE.model.apply)
  predictions = predict({"params": variables.params}, OBJECTIVE.patches(batch), mask)
  with torch.no_grad():
    last = theirs.layers(batch["image"])[0][-1]  # not normalized
    # `forward_loss` of the authors: the unbiased variance, and a beta of 2.
    targets = (last - last.mean(-1, keepdim=True)) / (
      last.var(-1, keepdim=True) + 1e-6
    ).sqrt()
    # The class token is predicted as each masked patch is.
    masked_ids = np.pad(np.asarray(mask.masked_ids) + 1, ((0, 0), (1, 0)))
    expected = torch.nn.SmoothL1Loss(beta=2.0)(
      torch.tensor(np.array(predictions)), taught.picked(targets, masked_ids)
    )
  loss = taught.loss_of(OBJECTIVE)(variables, batch, taught.STEP)
  assert abs(loss.value() / expected.item() - 1) <= 1e-5
  assert loss.weight == 4 * (1 + 12)


def test_the_decoder_is_maes_with_a_prediction_of_the_class_token(case):
  batch, variables = case
  mask = OBJECTIVE.mask(batch, taught.STEP)
  params, decoder = variables.params["decoder"], OBJECTIVE.model.decoder
  encoded = random(4, 1 + 4, 8)
  predict = jax.jit(decoder.apply, static_argnums=3)
  found, whole = (predict({"params": params}, encoded, mask, x) for x in (False, True))
  p = by_layers.doubles(params)
  x = by_layers.dense(p["embed"], by_layers.doubles(encoded))
  x = torch.cat([x, p["mask_token"].expand(4, 12, -1)], dim=1)
  order = np.pad(np.asarray(mask.restore_ids) + 1, ((0, 0), (1, 0)))
  x = by_layers.pick(x, order)
  x[:, 1:] += by_layers.doubles(sincos((4, 4), 8))
  x = by_layers.norm(p["norm"], by_layers.blocks(p["transformer"], x)[-1])
  expected = by_layers.dense(p["head"], x).numpy()
  assert_close(whole, expected)
  of_patches = mask.take_masked(expected[:, 1:])
  assert_close(found, np.concatenate([expected[:, :1], of_patches], axis=1))


def test_the_symmetric_student_predicts_features_by_their_cosine():
  objective, batch = make(**SYMMETRIC), taught.make_batch()
  variables = taught.make_variables(objective, batch)
  mask = objective.mask(batch, taught.STEP)
  patches = objective.patches(batch)
  predict = jax.jit(objective.model.apply)
  predictions = predict({"params": variables.params}, patches, mask)
  # The teacher's features are the patches.
  features = torch.tensor(np.array(mask.take_masked(patches)))
  own = torch.tensor(np.array(predictions))
  expected = 1 - torch.nn.functional.cosine_similarity(own, features, dim=-1).mean()
  loss = taught.loss_of(objective)(variables, batch, taught.STEP)
  assert abs(loss.value() / expected.item() - 1) <= 1e-5
  assert loss.weight == 4 * 12
  params = variables.params["encoder"]
  block = params["transformer"]["block_0"]
  assert "mask_token" in params and params["relative"]["table"].shape == (52, 2)
  assert "bias" not in block["attention"]["key"] and "mlp_scale" in block


def test_defaults_are_the_papers():
  objective = dbot(teacher="bootstrap")
  assert (objective.masking.num_masked, objective.model.decoder.depth) == (147, 8)
  assert objective.teacher.stages == 2
  assert objective.model.encoder.options.drop_path == 0.2
  # The decoder predicts as many channels as the encoder has.
  assert objective.model.decoder.size == objective.model.encoder.width == 768


def same(one, other):
  leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(a, b) for a, b in leaves)


def test_students_become_teachers_and_begin_anew(case):
  """Four steps in two stages, beside those of a student that goes on."""
  batch = {name: case[0][name] for name in ("image", "index")}
  going_on = make(teacher={"name": "bootstrap", "stages": 1})
  optimizer = optax.sgd(0.1)
  init = jax.jit(functools.partial(training.init_state, OBJECTIVE, optimizer))

  @jax.jit
  def step(state):
    keywords = {"optimizer": optimizer, "key": taught.KEY, "num_steps": 4}
    return tuple(
      training.train_step(state, batch, objective=objective, **keywords)[0]
      for objective in (OBJECTIVE, going_on)
    )

  states, others = [jax.device_get(init(batch, taught.KEY))], [None]
  for _ in range(4):
    state, other = jax.device_get(step(states[-1]))
    states.append(state)
    others.append(other)
  teachers = [state.extra["teacher"]["encoder"] for state in states]
  students = [state.params["encoder"] for state in states]
  # The first teacher is the random network that the student begins as, and stays so
  # until the end of the stage.
  assert same(teachers[0], students[0]) and same(teachers[1], teachers[0])
  assert same(students[1], others[1].params["encoder"])
  assert not same(students[1], students[0])
  # Then it is the student, and the student a new one: random where it was random.
  assert same(teachers[2], others[2].params["encoder"])
  for path, new in jax.tree.leaves_with_path(states[2].params):
    old, first = (
      functools.reduce(lambda tree, key: tree[key.key], path, state.params)
      for state in (others[2], states[0])
    )
    # MAE's authors draw the bias of the embedding of patches.
    drawn = path[-2].key == "embed" and path[0].key == "encoder"
    constant = path[-1].key in ("bias", "scale") and not drawn
    assert np.array_equal(new, first) == constant, path
    assert not np.array_equal(new, old), path
    assert constant or abs(new.std() / first.std() - 1) < 0.6, path
  # The second stage has one teacher, and its last student stays.
  assert same(teachers[3], teachers[2]) and same(teachers[4], teachers[2])
  assert same(states[4].params, others[4].params)


def test_other_teachers_never_restart(case):
  batch, *_ = case
  objective = make(teacher=taught.FEATURES_ALONE, target="features")
  assert objective.model.decoder.patch_dim == 4
  variables = taught.make_variables(objective, batch)
  assert objective.update(variables, batch, ENDS, {}).params is variables.params


def test_a_new_student_begins_at_the_end_of_a_stage_alone(case):
  """From the key of its step, whatever the student had become."""
  batch, variables = case
  update = jax.jit(functools.partial(OBJECTIVE.update, sums={}))
  ended, went_on = (update(variables, batch, step) for step in (ENDS, GOES_ON))
  key = keys.named(taught.KEY, "restart")
  anew = jax.jit(OBJECTIVE.init_params)(key, batch)
  assert same(ended.params, anew) and same(went_on.params, variables.params)
  assert same(ended.extra["teacher"]["encoder"], variables.params["encoder"])
  assert same(went_on.extra, variables.extra)


def test_paths_are_dropped_in_training_alone():
  deep = {"encoder": taught.STUDENT}
  dropping, keeping = make(drop_path=0.9, **deep), make(**deep)
  batch = taught.make_batch()
  variables = taught.make_variables(keeping, batch)

  @jax.jit
  def losses(variables):
    found = (keeping.loss, dropping.evaluate, dropping.loss)
    return [loss(variables, batch, taught.STEP).value() for loss in found]

  kept, evaluated, dropped = losses(variables)
  assert abs(evaluated / kept - 1) < 1e-6
  assert abs(dropped / kept - 1) > 1e-3


def test_losses_fall_and_features_stay_apart():
  objective = make(
    encoder={"width": 16, "depth": 1, "heads": 2},
  )
  losses, state = train(objective, 60)
  for stage in (losses[:30], losses[30:]):
    assert stage[-5:].mean() < 0.8 * stage[:3].mean()
  features = jax.jit(objective.features)(jax.device_get(state.variables), held_out())
  taught.assert_no_collapse(features)


@pytest.mark.parametrize(
  "change, complaint",
  [
    ({"beta": -1}, "beta=-1: expected a number above 0"),
    ({"target": "blocks"}, "target='blocks': did you mean 'block'"),
    ({"error": "l2"}, "error='l2': there are: cosine, smooth_l1"),
    ({"masked_patches": "token"}, "masked_patches='token': expected no decoder"),
    (
      {"teacher": taught.FEATURES_ALONE},
      "Patches has no layers: expected an objective with layers",
    ),
    ({"mask_ratio": 1.0}, "mask_ratio=1.0: expected"),
    (
      {"teacher": {"name": "bootstrap", "stages": 0}},
      "teacher.stages=0: expected at least 1",
    ),
  ],
)
def test_bad_hyperparameters_are_refused(change, complaint):
  with pytest.raises(UserError, match=complaint):
    make(**change)


def test_a_run_is_a_whole_number_of_stages(case):
  batch, variables = case
  complaint = "num_steps=5: expected a multiple of objective.teacher.stages=2"
  with pytest.raises(UserError, match=complaint):
    OBJECTIVE.update(variables, batch, Step(taught.KEY, 1, num_steps=5), {})
