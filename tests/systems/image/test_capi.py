"""CAPI: inverse blocks, clusters shared out at each position, a predictor."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image.latents import digits, train

from maskjax import keys, masking
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import capi
from maskjax.systems.image.capi import objective as module
from maskjax.systems.image.capi.network import on_the_edge
from maskjax.targets import sinkhorn

torch = pytest.importorskip("torch")

KEY = jax.random.key(3)
TINY = {"width": 16, "depth": 1, "heads": 2}


STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """Each patch has the clusters that it is near to: none is shared out evenly."""
  nearest = lambda scores, where, steps: jax.nn.softmax(scores)  # noqa: E731
  monkeypatch.setattr(module, "sinkhorn", nearest)


def make(**more):
  """Images of 8 x 12 pixels in 4 x 6 patches, of which 15 are masked, 4 predicted."""
  return capi(
    **{
      "image_size": (8, 12),
      "channels": 1,
      "patch_size": 2,
      "encoder": TINY,
      "predictor": {"depth": 2},
      "registers": 4,
      "num_clusters": 5,
      "predicted_ratio": 0.27,
      "student_temperature": 0.15,
      "drop_path": 0.0,
      **more,
    }
  )


def make_batch(count=6):
  valid = np.ones(count, bool)
  return {"image": random(count, 8, 12, 1), "index": np.arange(count), "valid": valid}


@functools.cache
def compiled():
  objective = make()
  variables = jax.eval_shape(objective.init, KEY, make_batch())
  params, extra = shaken(variables.params), shaken(variables.extra, seed=1)

  def loss(params, extra, batch):
    loss = objective.loss(Variables(params, extra), batch, STEP)
    return loss.sum / loss.weight, loss

  @jax.jit
  def run(params, extra, batch):
    example_keys = keys.example_keys(keys.named(KEY, "predicted"), batch)
    mask = objective.mask(batch, STEP).subset(example_keys, 4)
    (_, found), (gradient, to_teacher) = jax.value_and_grad(
      loss, argnums=(0, 1), has_aux=True
    )(params, extra, batch)
    features = objective.features(Variables(extra["teacher"]), batch)
    logits = objective.clusters.apply({"params": params["clusters"]}, features)
    patches, given = objective.patches(batch), {"params": params}
    return {
      "loss": found,
      "gradient": gradient,
      "to_teacher": to_teacher,
      "features": features,
      "logits": logits,
      "assignments": objective.assignments(logits, batch["valid"]),
      "mask": mask,
      "before_head": objective.model.apply(
        given,
        *(patches, mask),
        method=lambda m, *x: m.predictor(m.encoder(*x), x[1]),
      ),
      "predictions": objective.model.apply(given, patches, mask),
    }

  return params, extra, lambda *given: jax.device_get(run(*given))


# Masks


def inverse_block_by_hand(key, grid, num_masked):
  """A rectangle's first patches, row by row, rolled around the grid."""
  keys, shown = jax.random.split(key, 3), grid[0] * grid[1] - num_masked
  low = max(math.log(0.5), math.log(shown / grid[1] ** 2))
  high = min(math.log(2), math.log(grid[0] ** 2 / shown))
  aspect = math.exp(float(jax.random.uniform(keys[0], minval=low, maxval=high)))
  inside = np.zeros(grid, bool)
  height, width = math.ceil(math.sqrt(shown * aspect)), math.sqrt(shown / aspect)
  inside[:height, : math.ceil(width)] = True
  seen = np.zeros(grid[0] * grid[1], bool)
  seen[np.flatnonzero(inside)[:shown]] = True
  by = [int(jax.random.randint(keys[i + 1], (), 0, grid[i])) for i in range(2)]
  return ~np.roll(seen.reshape(grid), by, (0, 1)).ravel()


def test_inverse_blocks_by_hand():
  grid, keys = (6, 8), jax.random.split(KEY, 400)
  masked = np.asarray(
    jax.jit(jax.vmap(lambda key: masking.inverse_block(key, grid, 31)))(keys)
  )
  theirs = [inverse_block_by_hand(key, grid, 31) for key in keys[:40]]
  np.testing.assert_array_equal(masked[:40], theirs)
  assert (masked.sum(axis=1) == 31).all()
  # Each position is visible as often as any other: 400 x 17 / 48 = 142, std 10.
  counts = (~masked).sum(axis=0)
  assert counts.min() > 100 and counts.max() < 185


# Clusters


def sinkhorn_by_hand(scores, steps):
  """[N, B, K]: columns over examples, then rows over clusters, `steps` times."""
  shares = np.exp(scores.astype(np.float64))
  for _ in range(steps):
    shares /= shares.sum(axis=1, keepdims=True)
    shares /= shares.sum(axis=2, keepdims=True)
  return shares


@pytest.mark.parametrize("steps", [1, 3])
def test_sinkhorn_by_hand(steps):
  scores = 2 * random(3, 6, 4)
  ours = sinkhorn(scores, np.ones(6, bool), steps=steps)
  np.testing.assert_allclose(ours, sinkhorn_by_hand(scores, steps), rtol=1e-5)


def test_sinkhorn_shares_clusters_out_at_each_position():
  """A cluster that every image has at one position is spread like all others there."""
  scores = random(2, 64, 4)
  scores[0, :, 2] += 20
  shares = np.asarray(sinkhorn(scores, np.ones(64, bool), steps=20))
  np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-5)
  np.testing.assert_allclose(shares.sum(axis=1), 16, rtol=1e-2)


def test_sinkhorn_leaves_out_what_is_not_valid():
  scores = random(2, 6, 4)
  where = np.array([True, False, True, True, False, True])
  shares = sinkhorn(np.where(where[:, None], scores, 1e4), where, steps=3)
  assert not shares[:, ~where].any()
  np.testing.assert_allclose(
    shares[:, where], sinkhorn_by_hand(scores[:, where], 3), rtol=1e-5
  )
  assert np.isfinite(sinkhorn(1e3 * scores, where, steps=3)).all()


# The loss


def test_the_loss_by_hand():
  params, extra, run = compiled()
  out = run(params, extra, make_batch())
  weights = jax.tree.map(np.float64, params["clusters"]["head"])
  features = out["features"].astype(np.float64)
  features = features / np.linalg.norm(features, axis=-1, keepdims=True)
  logits = features @ weights["kernel"] + weights["bias"]
  targets = sinkhorn_by_hand(logits.swapaxes(0, 1) / 0.06, 3).swapaxes(0, 1)
  assert_close(out["logits"], logits)
  np.testing.assert_allclose(out["assignments"], targets, rtol=1e-4, atol=1e-7)

  def entropy(logits, targets, temperature=0.12):
    logits, targets = torch.tensor(logits).double(), torch.tensor(targets).double()
    loss = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1) / temperature, targets.flatten(0, 1)
    )
    return loss.item()

  # Each prediction has the clusters of the same patch of the same image.
  ids = out["mask"].masked_ids[..., None]
  prediction = entropy(
    out["predictions"], np.take_along_axis(out["assignments"], ids, axis=1), 0.15
  )
  np.testing.assert_allclose(
    out["loss"].metrics["prediction"].value(), prediction, rtol=1e-5
  )
  clustering = entropy(logits, out["assignments"])
  np.testing.assert_allclose(
    out["loss"].metrics["clustering"].value(), clustering, rtol=1e-5
  )
  np.testing.assert_allclose(
    out["loss"].metrics["clustering"].value(), entropy(logits, targets), rtol=1e-4
  )
  assert out["loss"].weight == 6
  metrics = out["loss"].metrics
  total = metrics["prediction"].value() + metrics["clustering"].value()
  np.testing.assert_allclose(out["loss"].value(), total, rtol=1e-6)


def rms(x, scale=1.0):
  return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * scale


def turned(x, at):
  """Of heads [N, H, 8] at positions in [0, 1]: channel i goes with channel i + 4."""
  frequency = 2 * np.pi * np.array([7, 7e-4, 7, 7e-4])
  row, column = np.moveaxis(at[:, None, :, None] * frequency, 2, 0)
  a, b = x[..., :4], x[..., 4:]
  first = a * np.cos(row) - b * np.sin(row)
  return np.concatenate([first, b * np.cos(column) + a * np.sin(column)], axis=-1)


def block_by_hand(params, x, at, name, context=None, context_at=None):
  """A block without biases; the norm is of what attends, never of a context."""
  y = rms(x, params[f"{name}_norm"]["scale"])
  context, context_at = (y, at) if context is None else (context, context_at)
  query, key, value = (
    (tokens @ params[name][layer]["kernel"]).reshape(-1, 2, 8)
    for layer, tokens in (("query", y), ("key", context), ("value", context))
  )
  query, key = turned(query, at), turned(key, context_at)
  weights = np.exp(np.einsum("nhd,khd->hnk", query, key) / np.sqrt(8))
  weights /= weights.sum(axis=-1, keepdims=True)
  y = np.einsum("hnk,khd->nhd", weights, value).reshape(-1, 16)
  x = x + y @ params[name]["out"]["kernel"]
  y = rms(x, params["mlp_norm"]["scale"]) @ params["mlp"]["up"]["kernel"]
  y = torch.nn.functional.gelu(torch.tensor(y)).numpy()
  return x + y @ params["mlp"]["down"]["kernel"]


def network_by_hand(params, patches, visible, masked):
  """Of one image: what the head is given at the masked patches."""
  encoder, predictor = params["encoder"], params["predictor"]
  at = np.indices((4, 6)).reshape(2, -1).T / (3, 5)
  # Four registers stand at the corners of the box around the visible patches.
  low, high = at[visible].min(axis=0), at[visible].max(axis=0)
  corners = low + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (high - low)
  seen = np.concatenate([corners, at[visible]])
  x = patches[visible] @ encoder["embed"]["kernel"] + encoder["embed"]["bias"]
  x = np.concatenate([encoder["registers"][0], x])
  x = rms(block_by_hand(encoder["transformer"]["block_0"], x, seen, "attention"))
  y = np.tile(predictor["mask_token"][0], (len(masked), 1))
  for i in range(2):
    block = predictor["transformer"][f"block_{i}"]
    y = block_by_hand(block, y, at[masked], "cross_attention", x, seen)
  return rms(y)


def test_the_network_by_hand():
  params, extra, run = compiled()
  batch = make_batch()
  out = run(params, extra, batch)
  assert "norm" not in params["encoder"] and "norm" not in params["predictor"]
  wide = jax.tree.map(np.float64, params)
  patches = np.asarray(make().patches(batch), np.float64)
  for b in range(2):
    ids = (out["mask"].visible_ids[b], out["mask"].masked_ids[b])
    expected = network_by_hand(wide, patches[b], *ids)
    assert_close(out["before_head"][b], expected)


def test_registers_stand_along_the_edge():
  """As the authors place them: a fourth on each side, from corner to corner."""
  box = np.array([[0.2, 0.0], [0.6, 0.5]])
  edge = [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [0.5, 1], [0, 1], [0, 0.5]]
  expected = np.array([0.2, 0.0]) + np.array(edge) * (0.4, 0.5)
  found = np.asarray(on_the_edge(box, 8))
  np.testing.assert_allclose(found, np.concatenate([expected, box]), atol=1e-6)


def test_the_papers_counts():
  """166 of 256 patches are masked and 8 predicted; all blocks drop alike."""
  objective = capi(encoder="Ti", num_clusters=2)
  assert objective.masking.num_masked == 166
  assert objective.num_predicted == 8


def test_the_first_block_drops_as_many_branches_as_the_last():
  """By a rule that rises from 0, a single block would drop none."""
  objective = make(drop_path=0.8)
  params, _, _ = compiled()
  patches = np.asarray(objective.patches(make_batch()))

  @jax.jit
  def encode(params, patches):
    rngs = {"drop_path": KEY}
    return [
      objective.model.encoder.apply({"params": params}, patches, rngs=given)
      for given in ({}, rngs)
    ]

  whole, dropped = encode(params["encoder"], patches)
  assert (np.abs(whole - dropped).max(axis=(1, 2)) > 1e-3).all()


def test_predictions_by_hand():
  """The head: directions of features times directions of rows, times their lengths."""
  params, extra, run = compiled()
  out = run(params, extra, make_batch())
  features = torch.tensor(out["before_head"]).double()
  kernel = torch.tensor(params["head"]["kernel"]).double()
  rows = torch.nn.functional.normalize(kernel, dim=0)
  expected = torch.nn.functional.normalize(features, dim=-1) @ rows
  expected = expected * torch.tensor(params["head"]["scale"])
  assert_close(out["predictions"], expected.numpy())


def test_the_directions_of_the_head_begin_normal_and_not_cut():
  """The authors cut them at 2, and not at two of their stds of 0.02."""
  head = make(num_clusters=500).model.head
  kernel = np.asarray(head.init(KEY, np.zeros((1, 1, 100)))["params"]["kernel"])
  assert abs(kernel.std() / 0.02 - 1) < 0.02
  assert np.abs(kernel).max() > 0.06


def test_each_loss_teaches_its_own_parameters():
  params, extra, run = compiled()
  out = run(params, extra, make_batch())

  def size(tree):
    return sum(float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(tree))

  assert set(out["gradient"]) == {"clusters", "encoder", "head", "predictor"}
  assert size(out["to_teacher"]) == 0
  # Clusters: the gradient of their own loss with respect to a linear layer.
  wrong = jax.nn.softmax(out["logits"] / 0.12) - out["assignments"]
  np.testing.assert_allclose(
    out["gradient"]["clusters"]["head"]["bias"],
    wrong.mean(axis=(0, 1)) / 0.12,
    rtol=1e-3,
    atol=1e-6,
  )


def test_masked_patches_attend_to_the_visible_ones_alone():
  params, extra, run = compiled()
  objective, batch = make(), make_batch()
  mask = run(params, extra, batch)["mask"]

  @jax.jit
  def predict(images, masked_ids):
    other = dataclasses.replace(mask, masked_ids=masked_ids)
    patches = objective.patches({"image": images})
    return objective.model.apply({"params": params}, patches, other)

  before = predict(batch["image"], mask.masked_ids)
  ids = mask.masked_ids.copy()
  ids[:, 0] = ids[:, 1]
  after = predict(batch["image"], ids)
  # No prediction depends on the others, but each on its position.
  np.testing.assert_allclose(after[:, 1:], before[:, 1:], rtol=1e-5, atol=1e-6)
  assert (np.abs(after[:, 0] - before[:, 0]).max(axis=1) > 1e-3).all()
  image = batch["image"].copy()
  for b, position in np.argwhere(mask.masked):
    row, column = divmod(position, 6)
    image[b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 3
  np.testing.assert_array_equal(predict(image, mask.masked_ids), before)


def test_rows_that_are_not_valid_do_not_count():
  params, extra, run = compiled()
  batch = make_batch()
  batch["valid"][4:] = False
  before = run(params, extra, batch)["loss"]
  batch["image"][4:] = 7
  after = run(params, extra, batch)["loss"]
  assert before.weight == 4
  np.testing.assert_allclose(after.sum, before.sum, rtol=1e-5)


def test_the_teacher_warms_up():
  teacher = make(
    teacher=dict(name="ema", decay=0.9, last=1.0, num_steps=30, warmup_steps=10)
  ).teacher
  decays = [float(teacher.decay(Step(KEY, number))) for number in (0, 5, 10, 20, 30)]
  np.testing.assert_allclose(decays, [1.0, 0.95, 0.9, 0.95, 1.0], rtol=1e-6)


def test_the_teacher_is_evaluated_instead_of_the_student():
  params, extra, _ = compiled()
  swapped = make().teacher_variables(Variables(params, extra))
  assert swapped.params == {**params, **extra["teacher"]}
  assert set(extra["teacher"]) == {"encoder"}


# Training


def test_the_loss_falls_and_features_do_not_collapse():
  objective = capi(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder={"width": 16, "depth": 1, "heads": 2},
    predictor={"depth": 1},
    registers=1,
    num_clusters=16,
    predicted_ratio=0.5,
    drop_path=0.1,
    teacher=dict(name="ema", decay=0.99),
  )
  losses, variation, _ = train(objective, digits(), steps=60, learning_rate=3e-3)
  assert losses[-10:].mean() < 0.9 * losses[:3].mean()
  assert variation > 0.15


@pytest.mark.parametrize(
  "bad, message",
  [
    (dict(student_temperature=0), "student_temperature=0: expected a number above 0"),
    (dict(target_temperature=-1), "target_temperature=-1"),
    (dict(num_clusters=0), "num_clusters=0: expected at least 1"),
    (dict(sinkhorn_steps=0), "sinkhorn_steps=0: expected at least 1"),
    (dict(predicted_ratio=1.5), "predicted_ratio=1.5: expected above 0 and at most 1"),
    (dict(registers=-1), "registers=-1: expected at least 0"),
    (dict(encoder={**TINY, "heads": 8}), "encoder.width=16: expected a multiple of 4"),
    (dict(predictor={"heads": 8}), "predictor.width=16: expected a multiple of 4"),
    (dict(mask="inverse"), "did you mean 'inverse_block'"),
    (dict(teacher="bootstrap"), "teacher.name='bootstrap': expected 'ema'"),
  ],
)
def test_mistakes_are_named(bad, message):
  with pytest.raises(UserError, match=message) as refusal:
    make(**bad)
  assert "\n" not in str(refusal.value)
