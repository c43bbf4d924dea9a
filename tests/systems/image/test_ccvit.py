"""CCViT: k-means for a tokenizer, centroids in the image, two branches."""

import functools

import jax
import numpy as np
import pytest
import torch
from helpers.arrays import assert_close, random, shaken
from helpers.image.by_layers import (
  IMAGES,
  KEY,
  blocks,
  dense,
  doubles,
  make_batch,
  norm,
  normalized,
  patches_of,
  train,
)
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from maskjax import sharding
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import ccvit
from maskjax.systems.image import ccvit as module
from maskjax.targets import kmeans, nearest

STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """The patches that are replaced stay as they are: no centroids in the image."""
  as_they_are = lambda patches, centroids, replaced: patches  # noqa: E731
  monkeypatch.setattr(module, "with_centroids", as_they_are)


SYSTEM = {
  **IMAGES,
  "branch": {"early": 1, "depth": 1},
  "num_centroids": 5,
  "mask": {"name": "blockwise", "min_patches": 2},
  "mask_ratio": 0.3,
  "colors": {"mean": 0.3, "std": 0.5},
}
# 4 of 12 patches are masked, and 2 replaced.
OBJECTIVE = ccvit(**SYSTEM)


@functools.cache
def outcome():
  """Variables, and what the system computes of a batch under them."""
  shapes = jax.eval_shape(OBJECTIVE.init, KEY, make_batch())
  params = shaken(shapes.params)
  extra = {"centroids": random(5, 4)}

  @jax.jit
  def run(params, extra, batch):
    mask = OBJECTIVE.mask(batch, STEP)

    def loss(params):
      loss = OBJECTIVE.loss(Variables(params, extra), batch, STEP)
      return loss.value(), loss

    (_, loss), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return {
      "mask": mask,
      "replaced": OBJECTIVE.replaced(mask, batch, STEP),
      "loss": loss,
      "gradients": gradients,
      "pictures": OBJECTIVE.reconstruct(Variables(params, extra), batch, STEP),
    }

  return params, extra, lambda batch: jax.device_get(run(params, extra, batch))


def by_layers(p, patches, masked):
  """The paper's two branches: logits and pixels of all patches."""
  encoder = p["encoder"]
  x = dense(encoder["embed"], patches)
  x = torch.where(torch.tensor(masked)[..., None], encoder["mask_token"], x)
  x = torch.cat([encoder["cls"].expand(len(x), 1, -1), x], dim=1)
  # The class token's last three biases: to patches, from them, to itself.
  table, positions = encoder["relative"]["table"], np.indices((3, 4)).reshape(2, 12)
  bias = torch.empty(2, 13, 13, dtype=torch.float64)
  bias[:, 0, 1:], bias[:, 1:, 0] = table[-3][:, None], table[-2][:, None]
  bias[:, 0, 0] = table[-1]
  down, right = positions[:, :, None] - positions[:, None, :]
  bias[:, 1:, 1:] = table[(down + 2) * 7 + right + 3].permute(2, 0, 1)
  outputs = blocks(encoder["transformer"], x, bias=bias)
  branch = torch.cat([outputs[1][:, :1], outputs[0][:, 1:]], dim=1)
  branch = blocks(p["branch"], branch, bias=bias)[-1]
  logits = dense(p["token_head"], norm(p["norm"], outputs[1]))
  pixels = dense(p["pixel_head"], norm(p["pixel_norm"], branch))
  return logits[:, 1:], pixels[:, 1:]


def test_it_is_the_papers_system():
  params, extra, run = outcome()
  batch = make_batch()
  out = run(batch)
  masked, replaced = out["mask"].masked, out["replaced"]
  patches, centroids = patches_of(batch["image"]), extra["centroids"]
  pixels = patches * 0.5 + 0.3  # before they were normalized
  ids = ((pixels[:, :, None] - centroids) ** 2).sum(-1).argmin(-1)
  seen = (centroids[ids] - 0.3) / 0.5
  given = np.where(replaced[..., None], seen, patches)
  p = jax.tree.map(lambda x: x.requires_grad_(), doubles(params))
  logits, predictions = by_layers(p, doubles(given), masked)
  predicted = masked | replaced
  truth = torch.tensor(ids[predicted])
  tokens = torch.nn.functional.cross_entropy(logits[predicted], truth)
  errors = torch.nn.functional.mse_loss(
    predictions[predicted], doubles(normalized(pixels))[predicted]
  )
  loss = out["loss"]
  assert loss.weight == predicted.sum() == 4 * 6
  np.testing.assert_allclose(loss.value(), (tokens + errors).item(), rtol=1e-5)
  for name, expected in (
    ("tokens", tokens),
    ("pixels", errors),
    ("accuracy", (logits[predicted].argmax(-1) == truth).double().mean()),
  ):
    np.testing.assert_allclose(
      loss.metrics[name].value(), expected.item(), rtol=1e-5, atol=1e-7
    )
  (tokens + errors).backward()
  assert_close(out["gradients"], jax.tree.map(lambda x: x.grad.numpy(), p))


def test_what_is_replaced_is_visible_and_follows_the_index():
  batch, run = make_batch(), outcome()[2]
  out = run(batch)
  assert out["replaced"].sum(axis=1).tolist() == [2] * 4
  assert not (out["replaced"] & out["mask"].masked).any()
  backwards = run({**batch, "index": np.arange(4)[::-1]})["replaced"]
  np.testing.assert_array_equal(backwards[::-1], out["replaced"])


def test_pictures_hold_the_pixels_of_the_second_branch():
  params, _, run = outcome()
  batch = make_batch()
  out = run(batch)
  masked, seen = out["mask"].masked, patches_of(batch["image"])
  _, pixels = by_layers(doubles(params), doubles(seen), masked)
  true = seen * 0.5 + 0.3
  expected = pixels.numpy() * np.sqrt(true.var(-1, ddof=1, keepdims=True) + 1e-6)
  expected = np.where(masked[..., None], expected + true.mean(-1, keepdims=True), true)
  drawn = patches_of(out["pictures"]["reconstructed"])
  np.testing.assert_allclose(drawn, expected, atol=1e-5)


# k-means


def patches_of_digits():
  """Real patches of 2 x 2 pixels, noise on top so that none are alike."""
  images = load_digits().images[:60].reshape(60, 4, 2, 4, 2)
  patches = images.transpose(0, 1, 3, 2, 4).reshape(60, 16, 4) / 16
  return (patches + 1e-3 * random(60, 16, 4)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def run_kmeans(points, centroids, steps):
  return kmeans(points, centroids, steps=steps)


@pytest.mark.parametrize("steps", [1, 20])
def test_kmeans_is_scikit_learns(steps):
  points = patches_of_digits()
  flat = points.reshape(-1, 4)
  first = flat[np.random.default_rng(0).choice(len(flat), 12, replace=False)]
  theirs = KMeans(12, init=first, n_init=1, max_iter=steps, tol=0, algorithm="lloyd")
  theirs.fit(flat.astype(np.float64))
  assert steps == 1 or 5 < theirs.n_iter_ <= 20
  ours = run_kmeans(points, first, steps)
  np.testing.assert_allclose(ours, theirs.cluster_centers_, rtol=1e-5, atol=1e-6)
  ids, distances = nearest(points, ours)
  np.testing.assert_array_equal(ids.ravel(), theirs.predict(flat.astype(np.float64)))
  np.testing.assert_allclose(distances.sum(), theirs.inertia_, rtol=1e-4)


def test_empty_clusters_are_scikit_learns():
  points = patches_of_digits()
  flat = points.reshape(-1, 4)
  first = np.concatenate([flat[:4], flat[:1], flat[:1], 9 + flat[:2]])  # 4 of 8 empty
  theirs = KMeans(8, init=first, n_init=1, max_iter=1, tol=0, algorithm="lloyd")
  theirs.fit(flat.astype(np.float64))
  ours = np.asarray(run_kmeans(points, first, 1))

  def in_order(centroids):
    return centroids[np.lexsort(centroids.T.round(4))]

  np.testing.assert_allclose(
    in_order(ours), in_order(theirs.cluster_centers_), rtol=1e-5, atol=1e-6
  )


def test_centroids_are_of_the_first_batch_on_any_mesh():
  batch = {"image": random(8, 6, 8, 1), "index": np.arange(8)}
  alone = jax.jit(OBJECTIVE.init)(KEY, batch)
  points = patches_of(batch["image"]) * np.float32(0.5) + np.float32(0.3)
  centroids = alone.extra["centroids"]
  # They have settled.
  np.testing.assert_allclose(run_kmeans(points, centroids, 1), centroids, atol=1e-5)
  mesh = sharding.make_mesh(data=4, devices=jax.devices()[:4])
  with jax.set_mesh(mesh):
    many = jax.jit(OBJECTIVE.init)(KEY, sharding.global_batch(mesh, batch))
  np.testing.assert_allclose(many.extra["centroids"], centroids, atol=1e-5)


def test_it_learns():
  objective = ccvit(**{**SYSTEM, "layer_scale": 1.0, "num_centroids": 4})
  values, first, state = train(objective, make_batch(16), steps=60, learning_rate=2e-2)
  assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])
  features = jax.jit(objective.features)(state.variables, make_batch(16))
  assert np.std(features, axis=(0, 1)).min() > 0.05
  np.testing.assert_array_equal(state.extra["centroids"], first.extra["centroids"])


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"branch": {"early": 3}}, "branch.early=3: expected from 1 to encoder.depth=2"),
    ({"branch": {"early": 1, "depth": 0}}, "branch.depth=0: expected at least 1"),
    ({"kmeans_steps": 0}, "kmeans_steps=0: expected at least 1"),
    ({"replace_ratio": 0.7}, "replace_ratio=0.7: .* mask_ratio=0.3 leaves visible"),
  ],
)
def test_hyperparameters_that_do_not_fit(wrong, message):
  with pytest.raises(UserError, match=message):
    ccvit(**{**SYSTEM, **wrong})


def test_more_centroids_than_patches_are_refused():
  objective = ccvit(**{**SYSTEM, "num_centroids": 49})
  with pytest.raises(UserError, match="num_centroids=49: expected at most the 48 pat"):
    jax.eval_shape(objective.init, KEY, make_batch())
