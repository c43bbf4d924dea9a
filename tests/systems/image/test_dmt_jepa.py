"""DMT-JEPA: targets aggregated from the neighbors most similar to a patch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image.latents import digits, train

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import dmt_jepa
from maskjax.systems.image import dmt_jepa as module
from maskjax.systems.image.dmt_jepa import neighborhood, similar_neighbors

KEY = jax.random.key(3)
STEP = Step(KEY)
TINY = {"width": 8, "depth": 1, "heads": 2}


def make(**more):
  """Images of 8 x 12 pixels in 4 x 6 patches."""
  return dmt_jepa(
    **{
      "image_size": (8, 12),
      "channels": 1,
      "patch_size": 2,
      "encoder": TINY,
      "predictor": TINY,
      "context_ratio": 0.34,
      "num_neighbors": 3,
      **more,
    }
  )


def without_mechanism(monkeypatch):
  """The targets are I-JEPA's: the teacher's features as they are."""
  network = module.DiscriminativeJointEmbedding
  monkeypatch.setattr(network, "targets", lambda self, features: features)


def make_batch(count=2):
  return {"image": random(count, 8, 12, 1), "index": np.arange(count)}


@functools.cache
def compiled():
  objective = make()
  shapes = jax.eval_shape(objective.init, KEY, make_batch())
  params, extra = shaken(shapes.params), shaken(shapes.extra, seed=1)

  @jax.jit
  def run(params, extra, batch):
    mask, blocks = objective.mask(batch, STEP), objective.target_blocks(batch, STEP)
    variables = Variables(params, extra)
    patches = objective.patches(batch)
    model, given = objective.model, {"params": params}
    return {
      "loss": objective.loss(variables, batch, STEP),
      "blocks": blocks,
      "features": objective.features(Variables(extra["teacher"]), batch),
      "targets": objective.target_features(variables, batch),
      "visible": model.encoder.apply({"params": params["encoder"]}, patches, mask),
      "context": model.apply(
        given, patches, mask, method=lambda m, *x: m.head(m.encoder(*x))
      ),
      "predictions": model.apply(given, patches, mask, blocks),
    }

  return params, extra, lambda *given: jax.device_get(run(*given))


# The equations


def normal(x, norm=None, epsilon=1e-6):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
  return x if norm is None else x * norm["scale"] + norm["bias"]


def dense(x, layer):
  return x @ layer["kernel"] + layer["bias"]


def block(tokens, others, p):
  """Tokens [M, D] plus what their mean attends to, itself and others [K, D]."""
  from scipy.special import erf, softmax

  y = normal(
    np.concatenate([tokens.mean(0, keepdims=True), others]), p["attention_norm"]
  )
  attention, drawn = p["attention"], []
  query = dense(y[:1], attention["query"])
  key, value = dense(y, attention["key"]), dense(y, attention["value"])
  for channels in (slice(0, 4), slice(4, 8)):  # two heads
    scores = query[:, channels] @ key[:, channels].T / 2
    drawn.append(softmax(scores, axis=-1) @ value[:, channels])
  tokens = tokens + dense(np.concatenate(drawn, axis=-1), attention["out"])
  masked = dense(normal(tokens, p["mlp_norm"]), p["mlp"]["up"])
  masked = masked * (1 + erf(masked / np.sqrt(2))) / 2
  return tokens + dense(masked, p["mlp"]["down"])


def head(tokens, others, p):
  for name in ("block_0", "block_1"):
    tokens = block(tokens, tokens if others is None else others, p[name])
  return normal(tokens, p["norm"])


def near(position, rows=4, columns=6, window=3):
  """The other positions of the window around a position, wrapped at the edges."""
  row, column = divmod(position, columns)
  positions = [
    (row + r) % rows * columns + (column + c) % columns
    for r in range(-(window // 2), window - window // 2)
    for c in range(-(window // 2), window - window // 2)
  ]
  return [other for other in positions if other != position]


def double(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def targets_by_hand(out):
  """The teacher's heads on the three most similar neighbors of each patch."""
  p = double(compiled()[1]["teacher"]["head"])
  expected = np.zeros((2, 24, 8))
  for b, features in enumerate(out["features"].astype(np.float64)):
    features = normal(features, epsilon=1e-5)
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    for i in range(24):
      around = np.array(near(i))
      best = around[np.argsort(-unit[around] @ unit[i])[:3]]
      expected[b, i] = head(features.mean(0, keepdims=True), features[best], p)
  return expected


def test_targets_by_hand():
  out = compiled()[2](*compiled()[:2], make_batch())
  assert_close(out["targets"], targets_by_hand(out))


def test_the_same_heads_work_on_the_context():
  params, extra, run = compiled()
  out = run(params, extra, make_batch())
  p = double(params["head"])
  expected = [head(features, None, p) for features in out["visible"].astype(np.float64)]
  assert_close(out["context"], np.stack(expected))


def test_the_loss_by_hand():
  out = compiled()[2](*compiled()[:2], make_batch())
  errors, targets = [], targets_by_hand(out)
  for b in range(2):
    far = np.abs(out["predictions"][b] - targets[b][out["blocks"][b]])
    errors.append(np.where(far < 1, far**2 / 2, far - 0.5))
  np.testing.assert_allclose(out["loss"].value(), np.mean(errors), rtol=1e-5)


def test_a_target_depends_on_its_own_patch_by_the_mean_alone():
  """A patch's own features, which I-JEPA predicts, are not among its neighbors'."""
  table = neighborhood((4, 6), 3)
  np.testing.assert_array_equal(table, [near(i) for i in range(24)])
  features = random(1, 24, 8)
  chosen = np.asarray(similar_neighbors(jnp.asarray(features), table, 3))[0]
  unit = features[0] / np.linalg.norm(features[0], axis=-1, keepdims=True)
  for i, ids in enumerate(chosen):
    assert i not in ids and set(ids) <= set(near(i))
    others = set(near(i)) - set(ids)
    cosines = unit @ unit[i]
    assert cosines[list(ids)].min() > cosines[list(others)].max()


def test_the_teacher_averages_the_heads_too():
  params, extra, _ = compiled()
  objective = make(teacher=dict(name="ema", decay=0.5))
  teacher = objective.update(Variables(params, extra), {}, STEP, {}).extra["teacher"]
  assert set(teacher) == {"encoder", "head"}
  scale = teacher["head"]["norm"]["scale"]
  parts = [tree["head"]["norm"]["scale"] for tree in (params, extra["teacher"])]
  np.testing.assert_allclose(scale, np.mean(parts, axis=0), rtol=1e-6)


# Training


def test_the_loss_falls_and_features_do_not_collapse():
  objective = dmt_jepa(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder={"width": 16, "depth": 1, "heads": 2},
    predictor=TINY,
    head_depth=1,
    num_targets=2,
    context_ratio=0.4,
    initialization="xavier",
    teacher=dict(name="ema", decay=0.99),
  )
  losses, variation, _ = train(objective, digits(), steps=80, learning_rate=1e-3)
  assert losses[-10:].mean() < 0.7 * losses[:3].mean()
  assert variation > 0.03


@pytest.mark.parametrize(
  "bad, message",
  [
    (dict(num_neighbors=9), "num_neighbors=9: expected at least 1 and less than 9"),
    (dict(num_neighbors=0), "num_neighbors=0"),
    (dict(window=5), "window=5: expected at least 2 and at most 4"),
    (dict(head_depth=0), "head_depth=0: expected at least 1"),
    (
      dict(teacher=dict(name="frozen", objective=dict(name="mae"))),
      "teacher.name='frozen': expected 'ema'",
    ),
  ],
)
def test_mistakes_are_named(bad, message):
  with pytest.raises(UserError, match=message) as refusal:
    make(**bad)
  assert "\n" not in str(refusal.value)
