"""DMT-JEPA: targets made of the neighbors that are most like a patch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image.latents import digits, train
from maskjax.models.jepa import neighborhood, similar_neighbors

from maskjax.errors import UserError
from maskjax.systems import dmt_jepa

KEY = jax.random.key(3)
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


def make_batch(count=2):
  return {"image": random(count, 8, 12, 1), "index": np.arange(count)}


@functools.cache
def compiled():
  objective = make()
  variables = jax.eval_shape(objective.init, KEY, make_batch())
  params, extra = shaken(variables.params), shaken(variables.extra, seed=1)

  @jax.jit
  def run(params, extra, batch):
    mask, blocks = objective.mask(batch, KEY), objective.blocks(batch, KEY)
    patches = objective.patches(batch)
    model, given = objective.model, {"params": params}
    return {
      "loss": objective.loss(params, extra, batch, KEY),
      "blocks": blocks,
      "codes": objective.features(extra["teacher"], batch),
      "targets": objective.targets_of(extra, batch),
      "seen": given
      and model.encoder.apply({"params": params["encoder"]}, patches, mask),
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
  """Tokens [M, D] plus what their mean draws from itself and others [K, D]."""
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


def near(place, rows=4, columns=6, window=3):
  """The other places of the window around a place, moved inside."""
  row, column = divmod(place, columns)
  top = min(max(row - 1, 0), rows - window)
  left = min(max(column - 1, 0), columns - window)
  places = [
    r * columns + c
    for r in range(top, top + window)
    for c in range(left, left + window)
  ]
  return [other for other in places if other != place]


def double(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def test_targets_by_hand():
  _, extra, run = compiled()
  out = run(*compiled()[:2], make_batch())
  p = double(extra["teacher"]["head"])
  expected = np.zeros((2, 24, 8))
  for b, codes in enumerate(out["codes"].astype(np.float64)):
    codes = normal(codes, epsilon=1e-5)
    unit = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    for place in range(24):
      around = np.array(near(place))
      best = around[np.argsort(-unit[around] @ unit[place])[:3]]
      expected[b, place] = head(codes.mean(0, keepdims=True), codes[best], p)
  assert_close(out["targets"], expected)


def test_the_same_heads_work_on_the_context():
  params, extra, run = compiled()
  out = run(params, extra, make_batch())
  p = double(params["head"])
  expected = [head(codes, None, p) for codes in out["seen"].astype(np.float64)]
  assert_close(out["context"], np.stack(expected))


def test_the_loss_by_hand():
  out = compiled()[2](*compiled()[:2], make_batch())
  errors = []
  for b in range(2):
    wanted = out["targets"][b][out["blocks"][b]].astype(np.float64)
    far = np.abs(out["predictions"][b] - wanted)
    errors.append(np.where(far < 1, far**2 / 2, far - 0.5))
  np.testing.assert_allclose(out["loss"].value(), np.mean(errors), rtol=1e-5)


def test_a_target_does_not_know_its_own_patch_but_by_the_mean():
  """What I-JEPA would predict at a patch is not even among what is drawn from."""
  table = neighborhood((4, 6), 3)
  np.testing.assert_array_equal(table, [near(place) for place in range(24)])
  codes = random(1, 24, 8)
  chosen = np.asarray(similar_neighbors(jnp.asarray(codes), table, 3))[0]
  unit = codes[0] / np.linalg.norm(codes[0], axis=-1, keepdims=True)
  for place, ids in enumerate(chosen):
    assert place not in ids and set(ids) <= set(near(place))
    others = set(near(place)) - set(ids)
    cosines = unit @ unit[place]
    assert cosines[list(ids)].min() > cosines[list(others)].max()


def test_the_teacher_averages_the_heads_too():
  params, extra, _ = compiled()
  after = make(teacher=dict(name="ema", decay=0.5)).update_extra(params, extra, 0, {})
  assert set(after["teacher"]) == {"encoder", "head"}
  scale = after["teacher"]["head"]["norm"]["scale"]
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
