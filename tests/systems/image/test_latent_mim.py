"""Latent MIM: cues, discrimination within an image, similarity."""

import functools

import jax
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image.latents import digits, train

from maskjax.errors import UserError
from maskjax.losses import squared_error
from maskjax.objectives import Step, Variables
from maskjax.systems import latent_mim
from maskjax.systems.image.latent_mim import objective as module
from maskjax.systems.image.latent_mim.network import NormedProjector, visual_cues
from maskjax.systems.image.latent_mim.objective import discrimination, mean_cosine

torch = pytest.importorskip("torch")

KEY = jax.random.key(3)
TINY = {"width": 8, "depth": 1, "heads": 2}


def without_mechanism(monkeypatch):
  """Each prediction is compared with its own target alone: no discrimination."""
  regression = lambda predictions, targets, temperature: squared_error(  # noqa: E731
    predictions, targets
  )
  monkeypatch.setattr(module, "discrimination", regression)


def make(**more):
  """Images of 12 x 9 pixels, 4 x 3 patches; 4 visible."""
  return latent_mim(
    **{
      "image_size": (12, 9),
      "channels": 1,
      "patch_size": 3,
      "encoder": TINY,
      "projector": {"hidden": 12, "depth": 2},
      "decoder": TINY,
      "mask_ratio": 0.67,
      **more,
    }
  )


def make_batch(count=3):
  valid = np.ones(count, bool)
  return {"image": random(count, 12, 9, 1), "index": np.arange(count), "valid": valid}


@functools.cache
def compiled():
  objective = make()
  variables = jax.eval_shape(objective.init, KEY, make_batch())
  params, taught = shaken(variables.params), shaken(variables.extra["teacher"], seed=1)

  @jax.jit
  def run(params, taught, batch, number):
    step = Step(KEY, number, num_steps=10)
    patches, mask = objective.patches(batch), objective.mask(batch, step)
    variables = Variables(params, {"teacher": taught})
    visible, predictions = objective.model.apply({"params": params}, patches, mask)
    return {
      "loss": objective.loss(variables, batch, step),
      "mask": mask,
      "visible": visible,
      "predictions": predictions,
      "targets": objective.teacher_features(variables, batch, mask),
      "teachers": objective.model.apply(
        {"params": taught}, patches, mask.inverse(), method="project"
      ),
    }

  return params, taught, lambda *given: jax.device_get(run(*given))


# The loss


def loss_by_hand(predictions, targets, visible, goal):
  """Of one image, by torch: cross-entropy over all of its patches, and similarity."""
  functional = torch.nn.functional
  predictions, targets, visible = (
    torch.tensor(x, dtype=torch.float64) for x in (predictions, targets, visible)
  )
  normed = (predictions - predictions.mean(0)) / (predictions.std(0) + 1e-4)
  cosines = (
    functional.normalize(normed, dim=-1) @ functional.normalize(targets, dim=-1).T
  )
  loss = functional.cross_entropy(cosines / 0.2, torch.arange(len(cosines))) * 0.4
  for features in (predictions, visible):
    pairs = functional.cosine_similarity(features[:, None], features[None], dim=-1)
    loss = loss + 0.1 * (pairs.mean() - goal) ** 2
  return loss.item()


@pytest.mark.parametrize("step, goal", [(0, 0.75), (5, 0.5), (10, 0.25)])
def test_the_loss_by_hand(step, goal):
  params, taught, run = compiled()
  out = run(params, taught, make_batch(), step)
  parts = zip(out["predictions"], out["targets"], out["visible"], strict=True)
  expected = np.mean([loss_by_hand(*part, goal) for part in parts])
  np.testing.assert_allclose(out["loss"].value(), expected, rtol=1e-5)
  assert out["loss"].weight == 3


def test_discrimination_is_blind_to_what_all_predictions_share():
  predictions, targets = random(2, 5, 8), random(2, 5, 8, seed=1)
  ours = discrimination(predictions, targets, temperature=0.2)
  shifted = discrimination(5 * predictions + 3, targets, temperature=0.2)
  np.testing.assert_allclose(shifted, ours, rtol=1e-3)
  # The same features everywhere: chance.
  same = discrimination(np.ones((2, 5, 8)), targets, temperature=0.2)
  np.testing.assert_allclose(same, 0.4 * np.log(5), rtol=1e-5)


def test_mean_cosine():
  features = np.array([[[2.0, 0.0], [0.0, 3.0]], [[1.0, 1.0], [4.0, 4.0]]])
  np.testing.assert_allclose(mean_cosine(features), [0.5, 1.0], rtol=1e-6)


def test_no_image_depends_on_another():
  params, taught, run = compiled()
  batch = make_batch()
  one = {**batch, "valid": np.array([True, False, False])}
  before = run(params, taught, one, 0)["loss"]
  one["image"] = np.where(one["valid"][:, None, None, None], one["image"], 9.0)
  after = run(params, taught, one, 0)["loss"]
  assert before.weight == after.weight == 1
  np.testing.assert_allclose(after.sum, before.sum, rtol=1e-6)


def test_the_teacher_sees_the_masked_patches_alone():
  params, taught, run = compiled()
  batch = make_batch()
  before = run(params, taught, batch, 0)
  np.testing.assert_array_equal(before["targets"], before["teachers"][:, 1:])
  masked = before["mask"].masked

  def painted(where):
    image = batch["image"].copy()
    for b, position in np.argwhere(where):
      row, column = divmod(position, 3)
      image[b, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] -= 2
    return run(params, taught, {**batch, "image": image}, 0)

  without = painted(~masked)
  np.testing.assert_array_equal(without["targets"], before["targets"])
  assert (without["predictions"] != before["predictions"]).any(axis=2).all()
  without = painted(masked)
  np.testing.assert_array_equal(without["predictions"], before["predictions"])
  assert (without["targets"] != before["targets"]).any(axis=2).all()


def test_masked_patches_begin_as_the_visible_features_near_them():
  masked, visible = random(2, 3, 8), random(2, 5, 8, seed=1)
  features = random(2, 5, 8, seed=2)
  scores = np.exp(masked.astype(np.float64) @ visible.swapaxes(1, 2) / np.sqrt(8))
  expected = scores / scores.sum(-1, keepdims=True) @ features
  assert_close(visual_cues(masked, visible, features), expected)


def test_positions_are_spread():
  """Of 4 x 3 patches rows are 4/3 apart and columns 3/2, whose channels come first."""
  params, _, _ = compiled()
  model = make().model
  nothing = jax.tree.map(np.zeros_like, params)
  row, column = np.indices((4, 3)).reshape(2, -1, 1)
  row, column, frequencies = row * 4 / 3, column * 3 / 2, np.array([1, 1e-2])
  expected = np.concatenate(
    [f(x * frequencies) for x in (column, row) for f in (np.sin, np.cos)], axis=1
  )
  encoder = model.encoder.clone(final_norm=False)
  tokens = jax.jit(encoder.apply)({"params": nothing["encoder"]}, random(1, 12, 9))
  np.testing.assert_allclose(tokens[0, 1:], expected, atol=1e-6)
  # All that remains of the decoder are positions, normalized, and its last layer.
  decoder = {**nothing["decoder"], "head": params["decoder"]["head"]}
  decoder["norm"] = {"scale": np.ones(8), "bias": np.zeros(8)}
  mask = make().mask(make_batch(1), Step(KEY))
  out = jax.jit(model.decoder.apply)({"params": decoder}, random(1, 5, 8), mask)
  here = torch.tensor(expected[np.asarray(mask.masked_ids[0])])
  here = torch.nn.functional.layer_norm(here, (8,), eps=1e-6).numpy()
  head = params["decoder"]["head"]
  assert_close(out[0], here @ head["kernel"] + head["bias"])


def test_predictions_begin_with_cues():
  """Without attention to the visible patches, predictions still depend on them."""
  params, taught, run = compiled()
  blind = jax.tree.map_with_path(
    lambda path, x: 0 * x if "cross_attention" in jax.tree_util.keystr(path) else x,
    params,
  )
  batch = make_batch()
  before = run(blind, taught, batch, 0)
  image = batch["image"].copy()
  for b, position in np.argwhere(~before["mask"].masked):
    row, column = divmod(position, 3)
    image[b, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] -= 2
  after = run(blind, taught, {**batch, "image": image}, 0)
  changed = np.abs(after["predictions"] - before["predictions"]).max(axis=2)
  assert (changed > 1e-3).all()


def test_twenty_patches_are_visible():
  assert 196 - latent_mim(encoder="Ti").masking.num_masked == 20


def test_the_projector_is_torchs():
  """Numbers are small, so that what is added to the variance shows."""
  x = 1e-3 * random(2, 5, 8)
  projector = NormedProjector(hidden=12, depth=2)
  params = shaken(projector.init(KEY, x)["params"])
  y = torch.from_numpy(x)
  for i, width in enumerate((12, 8)):
    norm = torch.nn.LayerNorm(width)
    for name, kind in (("weight", "scale"), ("bias", "bias")):
      getattr(norm, name).data = torch.tensor(params[f"norm_{i}"][kind])
    y = norm(y @ torch.tensor(params[f"dense_{i}"]["kernel"]))
    y = torch.nn.functional.gelu(y) if i == 0 else y
  assert_close(projector.apply({"params": params}, x), y.detach().numpy())


def test_the_teacher_averages_all_but_the_decoder():
  params, taught, _ = compiled()
  objective = make(teacher=dict(name="ema", decay=0.5))
  variables, step = Variables(params, {"teacher": taught}), Step(KEY, 6, num_steps=10)
  after = objective.update(variables, make_batch(), step, {}).extra
  assert set(after["teacher"]) == {"encoder", "projector"}
  for name, part in after["teacher"].items():
    for ours, new, old in zip(
      *map(jax.tree.leaves, (part, params[name], taught[name])), strict=True
    ):
      np.testing.assert_allclose(ours, (new + old) / 2, rtol=1e-5, atol=1e-7)
  swapped = objective.teacher_variables(variables)
  assert swapped.params == {**taught, "decoder": params["decoder"]}


# Training


def test_the_loss_falls_and_features_do_not_collapse():
  objective = latent_mim(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder={"width": 16, "depth": 1, "heads": 2},
    projector={"hidden": 16, "depth": 2},
    decoder=TINY,
    mask_ratio=0.75,
    teacher=dict(name="ema", decay=0.99),
  )
  images = digits()
  losses, variation, _ = train(objective, images, steps=60, learning_rate=3e-3)
  assert losses[-10:].mean() < 0.95 * losses[:3].mean()
  assert variation > 0.07


@pytest.mark.parametrize(
  "bad, message",
  [
    (dict(temperature=0), "temperature=0, .*: expected above 0"),
    (dict(similarity=(0.5, 2)), r"similarity=\(0.5, 2\): expected two cosines"),
    (dict(projector={"width": 3}), "projector=.*: expected `hidden` and `depth`"),
    (dict(mask_ratio=0.1), "mask_ratio=0.1: expected at least 2 masked"),
    (dict(teacher="bootstrap"), "teacher.name='bootstrap': expected 'ema'"),
  ],
)
def test_mistakes_are_named(bad, message):
  with pytest.raises(UserError, match=message) as refusal:
    make(**bad)
  assert "\n" not in str(refusal.value)
