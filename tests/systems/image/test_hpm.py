"""HPM: a teacher masks the patches whose errors it predicts to be largest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken

import maskjax as mj
from maskjax.masking import Mask
from maskjax.objectives import Step, Variables
from maskjax.systems import hpm, mae
from maskjax.systems.image import hpm as module
from maskjax.systems.image.hpm import hardest, ranking_error

KEY = jax.random.key(5)
SMALL = dict(
  image_size=8,
  channels=1,
  patch_size=2,
  encoder=dict(width=16, depth=1, heads=2),
  decoder=dict(width=8, depth=1, heads=2),
)
BATCH = {
  "image": random(4, 8, 8, 1),
  "index": np.arange(4),
  "valid": np.ones(4, bool),
}
NUM_MASKED = 12


def make(**more):
  return hpm(**{**SMALL, "teacher": dict(name="ema", decay=0.9), **more})


def without_mechanism(monkeypatch):
  """Masks are random at all steps."""

  def mined_mask(self, variables, batch, step):
    return self.mask(batch, step)

  monkeypatch.setattr(module.Hpm, "mined_mask", mined_mask)


@functools.cache
def variables():
  """A student, and a teacher with other parameters."""
  params, extra = jax.eval_shape(make().init, KEY, BATCH)
  return Variables(shaken(params), {**extra, "teacher": shaken(params, seed=1)})


def predicting_errors(params):
  """Of a network those parameters that MAE's would have, to predict the errors."""
  decoder = params["decoder"]
  shared = {name: decoder[name] for name in ("embed", "mask_token")}
  return {
    "encoder": params["encoder"],
    "decoder": {**shared, **decoder["predictor"]},
  }


@functools.cache
def compiled():
  objective, plain = make(), mae(**SMALL, norm_pix_loss=False)

  @jax.jit
  def run(variables, batch, step):
    params, extra = variables
    scores = objective.difficulty(Variables(extra["teacher"]), batch)
    masked = jax.vmap(hardest, in_axes=(0, 0, None, None))(
      mj.keys.example_keys(mj.keys.named(KEY, "mask"), batch),
      scores,
      NUM_MASKED,
      (jnp.minimum(step.number / 10, 1) * 0.5 * NUM_MASKED).astype(int),
    )
    mask = Mask.exactly(masked, num_masked=NUM_MASKED)

    def ranking(params):
      loss = objective.loss(Variables(params, extra), batch, step)
      return loss.metrics["ranking"].sum, loss

    (_, loss), gradient = jax.value_and_grad(ranking, has_aux=True)(params)
    return {
      "loss": loss,
      "of_ranking": gradient,
      "mask": mask,
      "mined": objective.mined_mask(variables, batch, step),
      "scores": scores,
      "predicted": objective.apply(Variables(params), objective.patches(batch), mask),
      "as_mae": plain.apply(
        Variables(predicting_errors(params)), plain.patches(batch), mask
      ),
      "evaluated": objective.evaluate(variables, batch, step),
    }

  return run


def run(step=10, batch=BATCH):
  step = Step(KEY, jnp.int32(step), num_steps=10)
  return jax.device_get(compiled()(variables(), batch, step))


def ranking(predicted, errors):
  """Equation 4 of the paper: which of two is larger, over all ordered pairs."""
  total = count = 0.0
  for i in range(len(errors)):
    for j in range(len(errors)):
      likely = 1 / (1 + np.exp(-(predicted[i] - predicted[j])))
      if errors[i] > errors[j]:
        total -= np.log(likely)
      if errors[i] < errors[j]:
        total -= np.log(1 - likely)
      count += errors[i] != errors[j]
  return total / max(count, 1)


def test_ranking_error_is_the_papers():
  predicted, errors = random(3, 7).astype(np.float64), random(3, 7, seed=1)
  errors[0, :3] = errors[0, 0]
  errors[1] = 2.0
  expected = [ranking(p, e) for p, e in zip(predicted, errors, strict=True)]
  assert expected[1] == 0
  ours = ranking_error(jnp.asarray(predicted), jnp.asarray(errors))
  np.testing.assert_allclose(ours, expected, rtol=1e-5)
  gradient = jax.grad(lambda p: ranking_error(p, errors).sum())(jnp.zeros((3, 7)))
  assert np.isfinite(gradient).all() and not gradient[1].any()


def test_the_loss_by_hand():
  out = run()
  predictions, predicted = out["predicted"]
  # [B, N, P]: 4 x 4 patches of 2 x 2
  patches = BATCH["image"].reshape(4, 4, 2, 4, 2).swapaxes(2, 3).reshape(4, 16, 4)
  reconstruction, pairs = [], []
  for b in range(4):
    truth = patches[b, np.flatnonzero(out["mask"].masked[b])].astype(np.float64)
    errors = ((predictions[b] - truth) ** 2).mean(axis=1)
    reconstruction.append(errors.mean())
    pairs.append(ranking(predicted[b].astype(np.float64), errors))
  loss = out["loss"]
  assert loss.weight == 4 * NUM_MASKED
  np.testing.assert_allclose(
    loss.value(), np.mean(reconstruction) + np.mean(pairs), rtol=1e-5
  )
  for name, expected in (("reconstruction", reconstruction), ("ranking", pairs)):
    np.testing.assert_allclose(loss.metrics[name].value(), np.mean(expected), rtol=1e-5)


def test_the_teacher_masks_the_hardest_in_the_end():
  """A share of the masked patches that grows from none to a half."""
  for step, hard in ((0, 0), (3, 1), (10, 6), (99, 6)):
    out = run(step)
    assert out["mined"].masked.sum(axis=1).tolist() == [NUM_MASKED] * 4
    order = np.argsort(-out["scores"], axis=1)
    assert np.take_along_axis(out["mined"].masked, order, axis=1)[:, :hard].all()
  by_chance = run(0)["mined"].masked
  noise = jax.vmap(lambda k: jax.random.uniform(k, (16,)))(
    mj.keys.example_keys(mj.keys.named(KEY, "mask"), BATCH)
  )
  expected = np.argsort(np.argsort(noise, axis=1), axis=1) >= 4
  np.testing.assert_array_equal(by_chance, expected)
  assert (run(10)["mined"].masked != by_chance).any()


def test_the_teacher_sees_all_and_the_student_does_not():
  out = run()
  change = np.flip(BATCH["image"][0, :2, :2])
  image = BATCH["image"].copy()
  image[0, :2, :2] = change
  after = run(batch={**BATCH, "image": image})
  assert (abs(after["scores"][0] - out["scores"][0]) > 0).all()


def test_errors_are_predicted_by_a_decoder_that_shares_its_tokens():
  """Its blocks are its own, and the mean of its outputs is the error of a patch."""
  out = run()
  assert out["as_mae"].shape == (4, NUM_MASKED, 4)
  assert_close(out["predicted"][1], out["as_mae"].mean(axis=-1), 1e-5)


def test_the_predicted_order_leaves_the_decoders_blocks_alone():
  gradient = jax.tree.map(lambda leaf: abs(leaf).max(), run()["of_ranking"])
  decoder = gradient["decoder"]
  for name in ("transformer", "norm", "head"):
    assert not any(jax.tree.leaves(decoder[name]))
  # But it teaches the encoder too, and what both decoders share.
  assert decoder["predictor"]["head"]["kernel"] > 1e-3
  for network in (decoder, gradient["encoder"]):
    assert network["embed"]["kernel"] > 1e-4


def test_held_out_it_is_mae():
  params, _ = variables()
  decoder = {k: v for k, v in params["decoder"].items() if k != "predictor"}
  params = {"encoder": params["encoder"], "decoder": decoder}
  loss = jax.jit(mae(**SMALL, norm_pix_loss=False).loss)
  theirs = loss(Variables(params), BATCH, Step(KEY))
  np.testing.assert_allclose(run()["evaluated"].value(), theirs.value(), rtol=1e-6)


def test_the_teacher_follows():
  params, extra = variables()
  after = make().update(variables(), BATCH, Step(KEY), {})
  expected = jax.tree.map(
    lambda old, new: 0.9 * old + 0.1 * new, extra["teacher"], params
  )
  for ours, theirs in zip(
    *map(jax.tree.leaves, (after.extra["teacher"], expected)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_teacher_is_a_network_of_the_students_kind():
  params, extra = make().teacher_variables(variables())
  assert params is extra["teacher"] is variables().extra["teacher"]


def test_the_papers_teacher():
  teacher = make(teacher=None).teacher
  steps = [Step(KEY, number, num_steps=200) for number in (0, 50, 100, 200)]
  np.testing.assert_allclose(
    [teacher.decay(step) for step in steps],
    [0.999, 0.99945, 0.9999, 0.9999],
    rtol=1e-6,
  )


def test_hardest_and_the_rest_at_random():
  scores = jnp.array([3.0, 9.0, 1.0, 7.0, 5.0, 2.0])
  draw = jax.vmap(lambda key: hardest(key, scores, 4, jnp.int32(2)))
  masked = np.asarray(draw(jax.random.split(KEY, 64)))
  assert (masked.sum(axis=1) == 4).all() and masked[:, [1, 3]].all()
  share = masked[:, [0, 2, 4, 5]].mean(axis=0)
  assert 0.2 < share.min() and share.max() < 0.8


@functools.cache
def trained():
  """The metrics of a tiny HPM on digits, every 10 steps, and its last state."""
  data = mj.data.Pipeline(
    source=mj.data.digits(), batch_size=32, transforms=[mj.data.to_float]
  )
  values = []

  class Writer(mj.metrics.Writers):
    def write(self, step, numbers):
      values.append(numbers)

  state = mj.fit(
    make(),
    data,
    optimizer=mj.training.adamw(learning_rate=1e-2, num_steps=400),
    num_steps=80,
    mesh=mj.sharding.make_mesh(devices=jax.devices()[:1]),
    writer=Writer(),
    log_every=10,
  )
  return values, state


def test_it_learns_to_reconstruct_and_what_is_hard():
  values, state = trained()
  assert values[-1]["train/reconstruction"] < 0.7 * values[0]["train/reconstruction"]
  # Equal predictions have log 2.
  assert values[-1]["train/ranking"] < 0.6
  assert int(state.step) == 80


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (dict(hard_ratio=(0.0, 1.5)), "hard_ratio=.*expected two numbers from 0 to 1"),
    (dict(hard_ratio=(0.5,)), "hard_ratio=.*expected two numbers from 0 to 1"),
    (dict(mask_ratio=1.0), "mask_ratio=1.0: expected a number between"),
    (
      dict(teacher=dict(name="frozen", objective=dict(name="mae", **SMALL))),
      "teacher.name='frozen': expected 'ema'",
    ),
  ],
)
def test_mistakes(more, message):
  with pytest.raises(mj.UserError, match=message):
    make(**more)
