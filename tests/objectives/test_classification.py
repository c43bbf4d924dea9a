"""Finetuning: its loss, what it draws, and the parameters it begins with."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.models import stack_blocks
from maskjax.objectives import Step, Variables, classification
from maskjax.systems import mae
from maskjax.training import transfer

SMALL = {"width": 8, "depth": 2, "heads": 2}
CLASSES = 3
KEY = jax.random.key(5)


def make_objective(**more):
  return classification(
    **{
      "num_classes": CLASSES,
      "image_size": 4,
      "channels": 1,
      "patch_size": 2,
      "encoder": SMALL,
      "norm_epsilon": 0.1,
      **more,
    }
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


# Pretrained parameters


def pretrained_and_fresh(**more):
  small = {"image_size": 4, "channels": 1, "patch_size": 2, "encoder": SMALL}
  old = mae(**{**small, **more}, decoder=SMALL)
  batch = make_batch()
  shapes = [
    jax.eval_shape(objective.init, KEY, batch).params
    for objective in (old, make_objective())
  ]
  return random_like(shapes[0], seed=1), random_like(shapes[1], seed=2)


def test_overlay_takes_the_encoder_and_leaves_the_head():
  old, fresh = pretrained_and_fresh()
  mixed = transfer.overlay(fresh, pretrained=old)
  assert jax.tree.structure(mixed) == jax.tree.structure(fresh)
  for name in ("embed", "cls", "transformer"):
    jax.tree.map(
      np.testing.assert_array_equal, mixed["encoder"][name], old["encoder"][name]
    )
  for name in ("norm", "head"):
    jax.tree.map(np.testing.assert_array_equal, mixed[name], fresh[name])
  assert "norm" in old["encoder"]  # which a classifier does not have
  assert "norm" not in mixed["encoder"]


def test_overlay_of_other_shapes():
  old, fresh = pretrained_and_fresh(encoder={**SMALL, "width": 12})
  with pytest.raises(
    UserError, match=r"init_from: encoder/cls has the shape \[1, 1, 12\]: .*\[1, 1, 8\]"
  ):
    transfer.overlay(fresh, pretrained=old)


def test_overlay_of_nothing():
  _, fresh = pretrained_and_fresh()
  with pytest.raises(
    UserError, match="init_from: none of its 2 parameters .* example encoder/cls"
  ):
    transfer.overlay(fresh, pretrained={"a": np.ones(2), "b": {"c": np.ones(2)}})


def test_overlay_of_scanned_blocks_takes_or_refuses_them():
  old, fresh = pretrained_and_fresh()
  try:
    mixed = transfer.overlay(fresh, pretrained=stack_blocks(old))
  except UserError:
    return
  jax.tree.map(
    np.testing.assert_array_equal,
    mixed["encoder"]["transformer"],
    old["encoder"]["transformer"],
  )


def test_check_same_takes_equal_names_and_shapes():
  old, _ = pretrained_and_fresh()
  transfer.check_same(old, jax.eval_shape(lambda: old), "runs/a")


@pytest.mark.parametrize(
  ("found", "message"),
  [
    ({"a": np.ones(2)}, "parameter b/c has the shape none, expected \\[3\\]"),
    ({"a": np.ones(2), "b": {"c": np.ones((3, 1))}}, "b/c has the shape \\[3, 1\\]"),
    (
      {"a": np.ones(2), "b": {"c": np.ones(3), "d": np.ones(1)}},
      "parameter b/d has the shape \\[1\\], expected none",
    ),
  ],
)
def test_check_same_names_what_differs(found, message):
  like = {"a": np.ones(2), "b": {"c": np.ones(3)}}
  with pytest.raises(UserError, match=f"runs/a does not fit the config: .*{message}"):
    transfer.check_same(found, like, "runs/a")
