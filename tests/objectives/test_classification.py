"""Finetuning: its loss, and what it draws."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from maskjax.errors import UserError
from maskjax.models import Classifier, VisionEncoder
from maskjax.objectives import Step, Variables, classification

SMALL = {"width": 8, "depth": 2, "heads": 2}
BERT = {"name": "bert", "vocabulary": "bert-base-uncased"}
CLASSES = 3
KEY = jax.random.key(5)


def make_objective(**more):
  system = dict(name="mae", image_size=4, channels=1, patch_size=2, encoder=SMALL)
  return classification(
    **{"num_classes": CLASSES, "system": {**system, "norm_epsilon": 0.1}, **more}
  )


def make_batch(same=False):
  """Six images; copies of one of them, which no mixing changes, when `same`."""
  rng = np.random.default_rng(0)
  image = rng.normal(size=(6, 4, 4, 1)).astype(np.float32)
  label = np.array([0, 1, 2, 2, 1, 0])
  if same:
    image, label = image[[0] * 6], np.full(6, 2)
  return {"image": image, "label": label, "index": np.arange(6)}


def random_like(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: 0.5 * rng.normal(size=x.shape).astype(np.float32), shapes
  )


@functools.cache
def make_params():
  return random_like(jax.eval_shape(make_objective().init, KEY, make_batch()).params)


@functools.cache
def compiled(**more):
  """`loss` and `evaluate` under random parameters."""
  objective, params = make_objective(**more), make_params()

  def call(method):
    run = jax.jit(method)
    return lambda batch, key=KEY: run(Variables(params), batch, Step(key))

  return call(objective.loss), call(objective.evaluate)


def log_softmax(x):
  x = np.asarray(x, np.float64)
  return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


@functools.cache
def plain_logits():
  """The mean of the patches' features, normalized, in a linear layer."""
  objective, params = make_objective(), make_params()

  @jax.jit
  def run(params):
    batch = make_batch()
    tokens = objective.model.encoder.apply(
      {"params": params["encoder"]}, objective.patches(batch)
    )
    return tokens, objective.features(Variables(params), batch)

  tokens, features = run(params)
  np.testing.assert_array_equal(features, tokens[:, 1:])
  assert features.shape == (6, 4, 8)
  mean = np.asarray(tokens, np.float64)[:, 1:].mean(axis=1)
  centered = mean - mean.mean(axis=1, keepdims=True)
  x = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + 0.1)
  x = x * params["norm"]["scale"] + params["norm"]["bias"]
  return x @ params["head"]["kernel"] + params["head"]["bias"]


def test_evaluate_is_cross_entropy_and_accuracy_of_plain_images():
  _, evaluate = compiled(drop_path=0.5, cutmix_alpha=0.0)
  batch, log_p = make_batch(), log_softmax(plain_logits())
  right = plain_logits().argmax(axis=1) == batch["label"]
  assert 0 < right.sum() < 6
  for valid in (np.ones(6, bool), np.array([True, True, False, True, False, True])):
    loss = evaluate({**batch, "valid": valid})
    errors = -log_p[np.arange(6), batch["label"]]
    assert float(loss.weight) == valid.sum()
    np.testing.assert_allclose(loss.value(), errors[valid].mean(), rtol=1e-5)
    assert float(loss.metrics["accuracy"].weight) == valid.sum()
    assert float(loss.metrics["accuracy"].sum) == right[valid].sum()
  # No draws: neither the key nor the index matters.
  other = evaluate(
    {**batch, "valid": valid, "index": batch["index"] + 9}, jax.random.key(6)
  )
  assert float(other.sum) == float(loss.sum)


def test_loss_is_of_what_mixup_cutmix_makes_of_smoothed_labels(monkeypatch):
  seen = {}
  mix = np.array([[0.5, 0.5, 0], [0, 0.9, 0.1], [0.3, 0, 0.7]], np.float32)

  def backwards(key, images, targets, **keywords):
    seen.update(keywords, key=key)
    return images[::-1], targets @ mix

  module = sys.modules[type(make_objective()).__module__]
  monkeypatch.setattr(module, "mixup_cutmix", backwards)
  objective = make_objective(
    drop_path=0.0, label_smoothing=0.3, mixup_alpha=0.4, cutmix_alpha=0.6
  )
  loss = jax.jit(objective.loss)(Variables(make_params()), make_batch(), Step(KEY))
  smooth = 0.7 * np.eye(CLASSES)[make_batch()["label"]] + 0.3 / CLASSES
  expected = -(smooth @ mix * log_softmax(plain_logits())[::-1]).sum(axis=1).mean()
  assert float(loss.weight) == 6
  np.testing.assert_allclose(loss.value(), expected, rtol=1e-5)
  assert (seen["mixup_alpha"], seen["cutmix_alpha"]) == (0.4, 0.6)


def test_mixing_follows_the_key_and_the_index():
  loss, _ = compiled(drop_path=0.0, cutmix_alpha=0.0)
  batch = make_batch()
  mixed = float(loss(batch).value())
  assert float(loss(batch).value()) == mixed
  draws = {float(loss(batch, jax.random.key(seed)).value()) for seed in range(8)}
  assert len(draws) == 8
  # The parts of a batch hold other examples, and so draw other numbers.
  other = loss({**batch, "index": batch["index"] + 6})
  assert float(other.value()) != mixed


def test_loss_drops_paths():
  """Seen on copies of one image, which no mixing changes."""
  same = make_batch(same=True)

  def spread(rate):
    loss, _ = compiled(drop_path=rate, cutmix_alpha=0.0)
    return np.ptp([loss(same, jax.random.key(seed)).value() for seed in range(4)])

  assert spread(0.0) < 1e-5  # rounding of the mixture
  assert spread(0.5) > 1e-2


def test_loss_without_mixing():
  loss, evaluate = compiled(
    drop_path=0.0, label_smoothing=0.0, mixup_alpha=0.0, cutmix_alpha=0.0
  )
  batch = {**make_batch(), "valid": np.ones(6, bool)}
  assert float(loss(batch).sum) == pytest.approx(float(evaluate(batch).sum), rel=1e-6)


def test_classification_refuses_images_of_other_shapes():
  with pytest.raises(UserError, match="images of 4x6x1: expected 4x4x1"):
    make_objective().init(KEY, {"image": jnp.zeros((2, 4, 6, 1))})


def test_each_class_by_itself():
  """Of every image and class, in place of one class of all."""
  unmixed = dict(drop_path=0.0, mixup_alpha=0.0, cutmix_alpha=0.0)
  objective = make_objective(**unmixed, label_smoothing=0.3, error="sigmoid")
  loss = jax.jit(objective.loss)(Variables(make_params()), make_batch(), Step(KEY))
  smooth = 0.7 * np.eye(CLASSES)[make_batch()["label"]] + 0.3 / CLASSES
  logits = np.asarray(plain_logits(), np.float64)
  each = np.log1p(np.exp(logits)) - smooth * logits
  np.testing.assert_allclose(loss.value(), each.mean(), rtol=1e-5)


def test_the_class_token_stands_after_registers():
  encoder = VisionEncoder(grid=(2, 2), width=8, depth=1, heads=2, registers=2)
  model = Classifier(encoder=encoder, num_classes=CLASSES, pool="class_token")
  patches = random_like(jnp.zeros((2, 4, 5)))
  params = random_like(jax.eval_shape(model.init, KEY, patches)["params"])

  @jax.jit
  def run(params):
    tokens = encoder.apply({"params": params["encoder"]}, patches)
    return model.apply({"params": params}, patches), tokens

  logits, tokens = run(params)
  x = np.asarray(tokens)[:, 2]
  x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  x = x * params["norm"]["scale"] + params["norm"]["bias"]
  expected = x @ params["head"]["kernel"] + params["head"]["bias"]
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("std", "expected"), [(0.02, 0.02), (None, (3 * 256) ** -0.5)])
def test_the_last_layer_begins_as_the_papers_have_it(std, expected):
  head = Classifier(encoder=Ones(), num_classes=400, norm=False, head_std=std)
  params = head.init(KEY, jnp.zeros((1, 2, 4)))["params"]["head"]
  # The std of 102,400 draws is itself off by 0.2 %.
  assert float(params["kernel"].std()) == pytest.approx(expected, rel=0.02)
  # Uniform within 1 / 16, or 0.
  assert (abs(params["bias"]) <= 1 / 16).all()
  assert float(params["bias"].std() > 0) == (std is None)


class Ones(nn.Module):
  """An encoder whose features are 1."""

  def __call__(self, patches):
    return jnp.ones((*patches.shape[:2], 256))

  def patch_tokens(self, tokens):
    return tokens


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"system": "maee"}, "did you mean 'mae'"),
    ({"system": BERT}, "has no encoder and patches"),
    ({"norm": "old"}, "norm='old'"),
    ({"pool": "max"}, "pool='max'"),
    ({"error": "hinge"}, "error='hinge'"),
    ({"positions": "lerned"}, "did you mean 'learned'"),
    ({"system": "mp3", "positions": "learned_sincos"}, "and not with 'none'"),
    ({"window": 7}, "window=7: expected none, which VisionEncoder does not have"),
    ({"num_classes": 0}, "num_classes=0"),
    ({"system": "spark", "block_bias": True}, "block_bias=True: expected none"),
    ({"system": "spark", "norm": "own"}, "norm='own': expected 'new' or 'none'"),
    ({"system": "spark", "pool": "class_token"}, "has no class token"),
    ({"system": "crossmae", "norm": "moved"}, "has no last normalization"),
  ],
)
def test_options_that_do_not_fit_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    make_objective(**wrong)
