"""Evaluation, against brute force, scikit-learn and sums over all examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from maskjax import data, evaluation, keys, sharding
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.objectives import Step, Variables
from maskjax.systems import mae

COUNT = 21  # two batches of 8, and 5 in the last


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pipeline(seed=0, count=COUNT, **columns):
  """Images of 4 x 4 pixels whose label is their number, once and in order."""
  source = data.arrays(
    image=random(count, 4, 4, 1, seed=seed), label=np.arange(count), **columns
  )
  return data.Pipeline(source=source, batch_size=8, shuffle=False, repeat=False)


MESHES = pytest.mark.parametrize("devices", [1, 8])


def mesh_of(devices):
  return sharding.make_mesh(devices=jax.devices()[:devices])


# The nearest neighbors


@pytest.mark.parametrize(
  ("neighbors", "temperature"), [(1, 0.07), (7, 0.07), (7, 10.0), (40, 0.5)]
)
def test_knn_by_brute_force(neighbors, temperature):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 4, 40)
  centers = 0.7 * rng.normal(size=(4, 5))
  train = centers[labels] + rng.normal(size=(40, 5))
  test = 3 * (centers[rng.integers(0, 4, 23)] + rng.normal(size=(23, 5)))
  predictions = []
  for x in test:
    cosine = [x @ t / np.linalg.norm(x) / np.linalg.norm(t) for t in train]
    votes = np.zeros(4)
    for nearest in sorted(range(40), key=lambda i: -cosine[i])[:neighbors]:
      votes[labels[nearest]] += np.exp(cosine[nearest] / temperature)
    predictions.append(votes.argmax())
  predictions = np.array(predictions)
  assert len(set(predictions)) > 2

  def accuracy(truth):
    return evaluation.knn_accuracy(
      train,
      labels,
      test,
      truth,
      neighbors=neighbors,
      temperature=temperature,
      chunk=8,
    )

  assert accuracy(predictions) == 1.0
  truth = np.where(np.arange(23) < 6, predictions, (predictions + 1) % 4)
  assert accuracy(truth) == 6 / 23


def test_knn_of_too_many_neighbors():
  x, y = random(3, 2), np.arange(3)
  with pytest.raises(UserError, match="neighbors=4: expected from 1 to the 3"):
    evaluation.knn_accuracy(x, y, x, y, neighbors=4)


# The linear probe


def sklearn_of(train, labels, l2):
  """The same objective: their C stands before the sum of the errors."""
  mean, std = train.mean(axis=0), train.std(axis=0) + 1e-6
  model = LogisticRegression(C=1 / (l2 * len(train)), tol=1e-8, max_iter=10_000)
  model.fit((train - mean) / std, labels)
  return lambda x: model.predict((x - mean) / std)


def test_linear_probe_finds_sklearns_boundaries():
  """Three classes on a line, in unequal numbers, overlapping.

  The probe agrees on a fine grid of points, so its optimum is the same, with an
  intercept that is not held back.
  """
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(3), [60, 20, 20])
  train = (5 + 3 * labels + rng.normal(size=100))[:, None]
  grid = np.linspace(2, 14, 3001)[:, None]
  predictions = sklearn_of(train, labels, 0.1)(grid)
  assert set(predictions) == {0, 1, 2}
  score = evaluation.linear_probe_accuracy(train, labels, grid, predictions, l2=0.1)
  assert score >= 1 - 2 / 3001  # a point at each boundary
  # A tenth of the penalty would have moved them.
  other = sklearn_of(train, labels, 0.01)(grid)
  assert (other == predictions).mean() < 0.99


def test_linear_probe_predicts_digits_as_sklearn_does():
  x, y = load_digits(return_X_y=True)
  train, labels, test, truth = x[:500], y[:500], x[500:900], y[500:900]
  predictions = sklearn_of(train, labels, 1e-2)(test)
  assert 0.85 < (predictions == truth).mean() < 1
  score = evaluation.linear_probe_accuracy(train, labels, test, predictions, l2=1e-2)
  assert score >= 1 - 1 / 400  # all but one that may lie on a boundary


# The held-out loss


class Numbers:
  """An objective whose loss of example `i` is its mean pixel, weighed i + 1."""

  def init(self, key, batch):
    return Variables(2.0, 1.0)

  def loss(self, variables, batch, step):
    weight = (batch["label"] + 1) * batch["valid"]
    mean = batch["image"].mean(axis=(1, 2, 3)) * variables.params + variables.extra
    return Loss((weight * mean).sum(), weight.sum(), {"n": Mean.of(batch["valid"])})


@MESHES
def test_held_out_loss_counts_each_example_once(devices):
  values = evaluation.held_out_loss(
    Numbers(),
    Variables(2.0, 1.0),
    pipeline(),
    step=Step(jax.random.key(0)),
    mesh=mesh_of(devices),
  )
  means = 2.0 * random(COUNT, 4, 4, 1).mean(axis=(1, 2, 3), dtype=np.float64) + 1
  expected = np.average(means, weights=np.arange(COUNT) + 1)
  assert set(values) == {"loss", "n"}
  assert values["loss"] == pytest.approx(expected, rel=1e-6)
  assert values["n"] == COUNT / 24  # what was filled up is marked


class Evaluated(Numbers):
  """One that is evaluated by something else than it is trained on."""

  def evaluate(self, variables, batch, step):
    # Random, by the example and the run's key alone.
    draws = jax.vmap(jax.random.uniform)(keys.example_keys(step.key, batch))
    return Loss.of(Mean.of(draws, batch["valid"]))


def test_held_out_loss_prefers_evaluate_and_draws_by_example():
  def value(key, batches, devices):
    return evaluation.held_out_loss(
      Evaluated(), Variables(0.0, 0.0), batches, step=Step(key), mesh=mesh_of(devices)
    )["loss"]

  first = value(jax.random.key(0), pipeline(), 8)
  key = keys.named(jax.random.key(0), "eval")
  draws = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(COUNT)]
  assert first == pytest.approx(np.mean(draws), rel=1e-6)
  assert value(jax.random.key(1), pipeline(), 8) != first
  # Whatever the batches are.
  source = pipeline().source
  other = data.Pipeline(source=source, batch_size=3, shuffle=False, repeat=False)
  assert value(jax.random.key(0), other, 1) == pytest.approx(first, rel=1e-6)


def test_held_out_loss_of_a_function_of_ones_own():
  """What `maskjax.fit` takes as batches, and `evaluation_batches` promises to."""
  values = evaluation.held_out_loss(
    Numbers(),
    Variables(2.0, 1.0),
    lambda start: (batch for batch in list(pipeline()(start))),
    step=Step(jax.random.key(0)),
    mesh=mesh_of(1),
  )
  assert set(values) == {"loss", "n"}


@pytest.fixture(scope="module")
def small_mae():
  small = {"width": 4, "depth": 1, "heads": 1}
  objective = mae(
    image_size=4, channels=1, patch_size=2, encoder=small, decoder=small, mask_ratio=0.5
  )
  example = {"image": jnp.zeros((8, 4, 4, 1)), "index": jnp.arange(8)}
  shapes = jax.eval_shape(objective.init, jax.random.key(0), example).params
  return objective, jax.tree.map(lambda x: 0.3 * random(*x.shape), shapes)


@pytest.fixture(scope="module")
def masks(small_mae):
  """Those of an evaluation, of all examples at once."""
  batch = {"index": np.arange(COUNT)}
  key = keys.named(jax.random.key(3), "eval")
  return jax.device_get(jax.jit(small_mae[0].mask)(batch, Step(key)))


def targets_by_hand(seed):
  """Patches [E, N, P], normalized, in float64."""
  image = random(COUNT, 4, 4, 1, seed=seed).astype(np.float64)
  patches = np.stack(
    [image[:, y : y + 2, x : x + 2].reshape(COUNT, 4) for y in (0, 2) for x in (0, 2)],
    axis=1,
  )
  std = np.sqrt(patches.var(axis=2, ddof=1, keepdims=True) + 1e-6)
  return (patches - patches.mean(axis=2, keepdims=True)) / std


def test_held_out_loss_of_mae_is_the_mean_over_all_examples(small_mae, masks):
  objective, params = small_mae
  value = evaluation.held_out_loss(
    objective,
    Variables(params),
    pipeline(),
    step=Step(jax.random.key(3)),
    mesh=mesh_of(8),
  )
  patches = objective.patches({"image": random(COUNT, 4, 4, 1)})
  predictions = jax.jit(objective.apply)(Variables(params), patches, masks)
  masked = np.take_along_axis(targets_by_hand(0), masks.masked_ids[..., None], axis=1)
  errors = (np.asarray(predictions) - masked) ** 2
  assert value["loss"] == pytest.approx(errors.mean(), rel=1e-6)


@MESHES
def test_mean_target_loss(small_mae, masks, devices):
  objective, _ = small_mae
  value = evaluation.mean_target_loss(
    objective,
    pipeline(),
    pipeline(seed=1),
    step=Step(jax.random.key(3)),
    mesh=mesh_of(devices),
  )
  mean = targets_by_hand(0).mean(axis=0)
  errors = ((mean - targets_by_hand(1)) ** 2).mean(axis=2)  # [E, N]
  assert value == pytest.approx(errors[masks.masked].mean(), rel=1e-6)


def test_lars_probe_sees_what_separates_classes():
  """Blobs around three means, in features of very different scales."""
  rng = np.random.default_rng(0)
  labels = np.arange(1200) % 3
  means = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
  x = (means[labels] + rng.standard_normal((1200, 3))) * [1e-3, 1.0, 1e3] + 7
  parts = (x[:900], labels[:900], x[900:], labels[900:])
  settings = {"batch_size": 100, "learning_rate": 10.0}
  found = evaluation.lars_probe_accuracy(*parts, **settings)
  # Two solvers' boundaries: 3 of the 300 examples may lie between them.
  assert found == pytest.approx(evaluation.linear_probe_accuracy(*parts), abs=0.01)
  assert found == evaluation.lars_probe_accuracy(*parts, **settings)
  shuffled = rng.permutation(labels[:900])
  chance = evaluation.lars_probe_accuracy(x[:900], shuffled, *parts[2:], **settings)
  assert chance < 0.6


# Rank


def test_effective_rank_is_that_of_known_spectra():
  rng = np.random.default_rng(0)
  turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
  scales = np.array([4.0, 2.0, 1.0, 0.0, 0.0, 0.0])
  # Orthogonal columns of mean 0, as cosines over whole periods are.
  waves = np.cos(2 * np.pi * np.outer(np.arange(64), np.arange(1, 7)) / 64)
  features = 7 + (waves * scales) @ turn
  for of, power in (("features", 1), ("covariance", 2)):
    p = scales[:3] ** power / (scales**power).sum()
    expected = np.exp(-(p * np.log(p)).sum())
    found = evaluation.effective_rank(features, of=of)
    assert found == pytest.approx(expected, rel=1e-4)


# Features and probes


@MESHES
@pytest.mark.parametrize("pooled", [False, True])
def test_pooled_features_come_in_order_and_once(devices, pooled):
  def features(scale, batch):
    x = scale * batch["image"].reshape(-1, 4, 4).astype(jnp.bfloat16)
    return x[:, 0] if pooled else x

  found, labels = evaluation.pooled_features(features, mesh_of(devices))(
    2.0, pipeline()
  )
  np.testing.assert_array_equal(labels, np.arange(COUNT))
  images = 2 * random(COUNT, 4, 4).astype(jnp.bfloat16).astype(np.float32)
  expected = images[:, 0] if pooled else images.mean(axis=1)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


class Choice:
  """Features that are an image's columns, or nothing, by the parameters."""

  def features(self, variables, batch):
    return variables * batch["image"][:, 0, :, 0]


def test_run_probes_compares_variants_and_pixels():
  labels = np.arange(32) % 4
  image = np.zeros((32, 4, 4, 1), np.float32)
  image[np.arange(32), 0, labels, 0] = 1

  def noisy(seed):
    image[:, 1:] = 100 * random(32, 3, 4, 1, seed=seed)  # drowns it among the pixels
    source = data.arrays(image=image.copy(), label=labels)
    return data.Pipeline(source=source, batch_size=8, shuffle=False, repeat=False)

  scores = evaluation.run_probes(
    Choice(),
    {"trained": 1.0, "untrained": 0.0},
    noisy(0),
    noisy(1),
    mesh=mesh_of(1),
    probes=("knn",),
  )
  assert list(scores) == ["trained", "untrained", "raw pixels"]
  assert scores["trained"] == {"knn": 1.0}
  assert scores["untrained"] == {"knn": 0.25}
  assert scores["raw pixels"]["knn"] < 1


def test_run_probes_of_no_such_name():
  with pytest.raises(UserError, match="no probe 'lineal': did you mean 'linear'"):
    evaluation.run_probes(
      Choice(), {}, pipeline(), pipeline(), mesh=mesh_of(1), probes=("lineal",)
    )


def test_probe_table():
  table = evaluation.probe_table(
    {
      "trained": {"knn": 0.98765, "linear": 1.0},
      "untrained": {"knn": 0.5, "linear": 0.0},
      "raw pixels": {"knn": 0.12345, "linear": 0.25},
    }
  )
  assert table.splitlines() == [
    "encoder         knn  linear",
    "trained        98.8   100.0",
    "untrained      50.0     0.0",
    "raw pixels     12.3    25.0",
  ]
