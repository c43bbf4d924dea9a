"""I-JEPA: blocks and targets; tests/agreement/test_ijepa.py has its encoder."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import random, shaken
from helpers.image.latents import digits, train

from maskjax import masking
from maskjax.errors import UserError
from maskjax.masking.multi_block import rectangle
from maskjax.objectives import Step, Variables
from maskjax.objectives.joint_embedding import BlockPrediction
from maskjax.systems import ijepa

torch = pytest.importorskip("torch")

KEY = jax.random.key(3)
STEP = Step(KEY)
TINY = {"width": 8, "depth": 1, "heads": 2}


def make(**more):
  """Images of 8 x 12 pixels in 4 x 6 patches; 4 targets of 3, a context of 8."""
  return ijepa(
    **{
      "image_size": (8, 12),
      "channels": 1,
      "patch_size": 2,
      "encoder": TINY,
      "predictor": TINY,
      "context_ratio": 0.34,
      **more,
    }
  )


def without_mechanism(monkeypatch):
  """Pixels of the patches are predicted instead of a teacher's features."""

  def pixels(self, variables, batch):
    return jnp.tile(self.patches(batch), (1, 1, 2))

  monkeypatch.setattr(BlockPrediction, "target_features", pixels)


def make_batch(count=4):
  valid = np.ones(count, bool)
  return {"image": random(count, 8, 12, 1), "index": np.arange(count), "valid": valid}


@functools.cache
def compiled():
  """Shaken variables, and a function of variables and a batch."""
  objective = make()
  shapes = jax.eval_shape(objective.init, KEY, make_batch())
  params, extra = shaken(shapes.params), shaken(shapes.extra, seed=1)

  @jax.jit
  def run(params, extra, batch):
    mask, blocks = objective.mask(batch, STEP), objective.target_blocks(batch, STEP)
    patches = objective.patches(batch)
    return {
      "loss": objective.loss(Variables(params, extra), batch, STEP),
      "masked": mask.masked,
      "blocks": blocks,
      "predictions": objective.model.apply({"params": params}, patches, mask, blocks),
      "features": objective.features(Variables(extra["teacher"]), batch),
    }

  return params, extra, lambda *given: jax.device_get(run(*given))


# Masks


@functools.cache
def drawn():
  """What is masked, what is predicted, and whole target blocks, of 300 examples."""
  sampler, grid = masking.MultiBlock(), (14, 14)

  def draw(key):
    blocks, _, _, _ = sampler._draw(key, grid)
    return sampler(key, grid, 196 - 80), sampler.targets(key, grid), blocks

  return jax.device_get(jax.jit(jax.vmap(draw))(jax.random.split(KEY, 300)))


def test_no_patch_is_both_visible_and_predicted():
  masked, targets, _ = drawn()
  assert ((~masked).sum(axis=1) == 80).all()
  assert targets.shape == (300, 4, 29)
  for visible, ids in zip(~masked, targets, strict=True):
    assert not visible[ids].any()
    assert all(len(set(block)) == 29 and (np.diff(block) > 0).all() for block in ids)


def test_targets_lie_in_blocks_of_the_papers_sizes():
  """15 to 20 % of the grid, 3/4 to 3/2 as high as wide, the larger the higher."""
  _, targets, blocks = drawn()
  sizes = set()
  for places, whole in zip(
    targets.reshape(-1, 29), blocks.reshape(-1, 196), strict=True
  ):
    assert whole[places].all()
    rows, columns = np.divmod(np.flatnonzero(whole), 14)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height * width == whole.sum()  # a rectangle
    sizes.add((height, width))
  assert sizes == {(5, 6), (6, 6), (6, 5), (7, 5), (8, 5)}


def test_the_context_is_filled_up_inside_target_blocks_last():
  masked, _, blocks = drawn()
  inside = blocks.any(axis=1)
  short = (~inside).sum(axis=1) < 80
  assert 0 < short.mean() < 0.5
  np.testing.assert_array_equal((~masked & inside).any(axis=1), short)
  assert not (masked & ~inside)[short].any()


def rectangle_by_hand(key, grid, scale, aspect, min_area):
  """The paper's block from the same uniform numbers."""
  keys = jax.random.split(key, 3)
  chance = float(jax.random.uniform(keys[0]))
  area = math.floor(grid[0] * grid[1] * (scale[0] + chance * (scale[1] - scale[0])))
  ratio = aspect[0] + chance * (aspect[1] - aspect[0])
  height = min(grid[0] - 1, round(math.sqrt(area * ratio)))
  width = min(grid[1] - 1, round(math.sqrt(area / ratio)))
  width = max(width, -(-min_area // height))
  top = math.floor(float(jax.random.uniform(keys[1])) * (grid[0] - height + 1))
  left = math.floor(float(jax.random.uniform(keys[2])) * (grid[1] - width + 1))
  inside = np.zeros(grid, bool)
  inside[top : top + height, left : left + width] = True
  return inside.ravel()


@pytest.mark.parametrize("scale", [(0.15, 0.2), (0.85, 1.0)])
def test_rectangles_by_hand(scale):
  grid, keys = (7, 9), jax.random.split(KEY, 40)
  size = dict(scale=scale, aspect=(0.75, 1.5), min_area=9)
  ours = jax.jit(jax.vmap(lambda key: rectangle(key, grid, **size)))(keys)
  theirs = [rectangle_by_hand(key, grid, **size) for key in keys]
  np.testing.assert_array_equal(ours, theirs)


def test_masks_follow_the_index_alone():
  params, extra, run = compiled()
  batch = make_batch()
  before = run(params, extra, batch)
  turned = run(params, extra, {**batch, "index": batch["index"][::-1].copy()})
  for name in ("masked", "blocks"):
    np.testing.assert_array_equal(turned[name][::-1], before[name])


# The loss


@pytest.mark.parametrize("error", ["smooth_l1", "squared"])
def test_the_loss_is_torchs(error):
  params, extra, run = compiled()
  out = run(params, extra, make_batch())
  features = torch.tensor(out["features"])
  features = torch.nn.functional.layer_norm(features, features.shape[-1:])
  blocks = torch.tensor(out["blocks"]).long().flatten(1)[..., None]
  targets = torch.take_along_dim(features, blocks, dim=1)
  compare = {
    "smooth_l1": torch.nn.functional.smooth_l1_loss,
    "squared": torch.nn.functional.mse_loss,
  }[error]
  predictions = torch.tensor(out["predictions"]).flatten(1, 2)
  expected = compare(predictions, targets).numpy()
  ours = make(error=error).error(predictions.numpy(), targets.numpy()).mean()
  np.testing.assert_allclose(ours, expected, rtol=1e-5)
  if error == "smooth_l1":
    np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-5)
    assert out["loss"].weight == 4 * 4 * 3


def test_the_target_is_the_teachers_and_of_the_whole_image():
  params, extra, run = compiled()
  batch = make_batch()
  before = run(params, extra, batch)
  other = run(params, shaken(extra, seed=5), batch)
  np.testing.assert_array_equal(other["predictions"], before["predictions"])
  assert abs(other["loss"].sum / before["loss"].sum - 1) > 1e-3
  # Change one masked patch: each target changes with it, no prediction does.
  position = int(np.flatnonzero(before["masked"][0])[0])
  row, column = divmod(position, 6)
  image = batch["image"].copy()
  image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 3
  after = run(params, extra, {**batch, "image": image})
  np.testing.assert_array_equal(after["predictions"], before["predictions"])
  assert (after["features"][0] != before["features"][0]).any(axis=1).all()


def test_each_block_is_predicted_by_itself():
  params, _, _ = compiled()
  objective, batch = make(), make_batch(2)

  @jax.jit
  def predict(blocks):
    patches, mask = objective.patches(batch), objective.mask(batch, STEP)
    return objective.model.apply({"params": params}, patches, mask, blocks)

  blocks = np.arange(24, dtype=np.int32).reshape(2, 4, 3)
  moved = blocks.copy()
  moved[:, 1] = blocks[:, 2]
  before, after = predict(blocks), predict(moved)
  np.testing.assert_array_equal(after[:, 0], before[:, 0])
  assert (after[:, 1] != before[:, 1]).any()


def test_the_teacher_averages_the_encoder_alone():
  objective = make(teacher=dict(name="ema", decay=0.5, last=1.0))
  params = {"encoder": {"x": jnp.full(2, 8.0)}, "predictor": {"y": jnp.zeros(3)}}
  extra = {"teacher": {"encoder": {"x": jnp.zeros(2)}}}
  for number, expected in ((0, 4.0), (2, 2.0), (4, 0.0)):
    step = Step(KEY, jnp.int32(number), num_steps=4)
    after = objective.update(Variables(params, extra), {}, step, {}).extra
    assert set(after["teacher"]) == {"encoder"}
    np.testing.assert_allclose(after["teacher"]["encoder"]["x"], expected, atol=1e-6)
  evaluated = objective.teacher_variables(Variables(params, extra)).params
  assert evaluated["encoder"] is extra["teacher"]["encoder"]
  assert evaluated["predictor"] is params["predictor"]


# Training


def test_the_loss_falls_and_features_do_not_collapse():
  objective = ijepa(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder={"width": 16, "depth": 1, "heads": 2},
    predictor=TINY,
    num_targets=2,
    context_ratio=0.4,
    initialization="xavier",
    teacher=dict(name="ema", decay=0.99),
  )
  losses, variation, _ = train(objective, digits(), steps=80, learning_rate=1e-3)
  assert losses[-10:].mean() < 0.7 * losses[:3].mean()
  assert variation > 0.03


def test_a_teacher_of_another_width_is_refused():
  other = dict(name="mae", image_size=(8, 12), channels=1, patch_size=2)
  other |= dict(encoder={**TINY, "width": 16}, decoder=TINY)
  with pytest.raises(UserError, match="16 wide: expected encoder.width=8"):
    make(teacher=dict(name="frozen", objective=other))


def test_a_network_of_another_kind_may_teach():
  other = dict(name="mae", image_size=(8, 12), channels=1, patch_size=2)
  other |= dict(encoder=TINY, decoder=TINY)
  objective = make(teacher=dict(name="frozen", objective=other))
  shapes = jax.eval_shape(objective.init, KEY, make_batch())
  assert jax.eval_shape(objective.loss, shapes, make_batch(), STEP).sum.shape == ()
  with pytest.raises(UserError, match="expected objective.teacher.name='ema'"):
    objective.teacher_variables(shapes)


@pytest.mark.parametrize(
  "bad, message",
  [
    (dict(num_targets=0), "num_targets=0: expected at least 1"),
    (dict(target_scale=(0.3, 0.2)), r"target_scale=\(0.3, 0.2\): expected the small"),
    (dict(context_scale=(0.5, 1.5)), r"context_scale=.* at most 1"),
    (dict(target_aspect=(0, 1)), r"target_aspect=\(0, 1\): expected .* above 0$"),
    (dict(context_ratio=0.6), "context_ratio=0.6: a context of 14 of 24.* at most 12"),
    (dict(context_ratio=0.0), "context_ratio=0.0: a context of 0 of 24"),
    (dict(error="smoth_l1"), "did you mean 'smooth_l1'"),
    (
      dict(predictor={"width": 9, "depth": 1}),
      "predictor.width=9: expected a multiple",
    ),
    (dict(teacher=dict(name="ema", warmup_steps=-1)), "teacher.warmup_steps=-1"),
  ],
)
def test_mistakes_are_named(bad, message):
  with pytest.raises(UserError, match=message) as refusal:
    make(**bad)
  assert "\n" not in str(refusal.value)
