"""VQ-KD: lookup, straight-through gradients, codes that follow their vectors."""

import ast
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.image.codes import KEY, MAE, VQKD, make_batch, train
from helpers.running import ROOT

from maskjax import config as configs
from maskjax.errors import UserError
from maskjax.losses import cosine_error
from maskjax.objectives import Step, Variables
from maskjax.systems import vqkd
from maskjax.systems.image.vqkd import codebook
from maskjax.systems.image.vqkd import objective as module


def without_mechanism(monkeypatch):
  """Vectors reach the decoder as they are: no vector quantization."""
  monkeypatch.setattr(module, "straight_through", lambda vectors, chosen: vectors)


@functools.cache
def made():
  """The objective, and its variables made by itself from a batch, in one function."""
  objective = vqkd(**VQKD)
  return objective, jax.jit(lambda batch: objective.init(KEY, batch))


@functools.cache
def variables():
  """Random parameters, and codes of which the last is the opposite of all seen."""
  objective, init = made()
  params, extra = init(make_batch())
  params, teacher = shaken(params), shaken(extra["teacher"], seed=1)
  vectors = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
  seen = jax.jit(objective.vectors)(Variables(params), make_batch())
  vectors[5] = -np.asarray(seen).mean(axis=(0, 1))
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  book = {"vectors": vectors, "counts": np.arange(6, dtype=np.float32)}
  return Variables(params, {"teacher": teacher, "codebook": book})


def outcome(batch):
  """All that the objective computes of a batch."""
  return jax.device_get(_outcome(variables(), batch))


@jax.jit
def _outcome(variables, batch):
  objective, (params, extra), step = made()[0], variables, Step(KEY)

  def loss_sum(params):
    loss = objective.loss(Variables(params, extra), batch, step)
    return loss.sum, loss

  def decode(vectors):
    return objective.model.apply({"params": params}, vectors, method="decode")

  gradient, loss = jax.grad(loss_sum, has_aux=True)(params)
  vectors, pull = jax.vjp(lambda p: objective.vectors(Variables(p), batch), params)
  codes = objective.codes(variables, batch)
  chosen = jnp.asarray(extra["codebook"]["vectors"])[codes]
  features = objective.teacher.features(None, extra["teacher"], batch)
  # With respect to what the decoder sees, and to the distance from the codes.
  through = jax.grad(lambda v: cosine_error(decode(v), features).sum())(chosen)
  (expected,) = pull(through + 2 * (vectors - chosen) / 4)
  return {
    "loss": loss,
    "after": objective.update(variables, batch, step, loss.sums).extra,
    "tokens": objective.features(variables, batch),
    "vectors": vectors,
    "codes": codes,
    "predictions": decode(chosen),
    "features": features,
    "through": through,
    "gradient": gradient,
    "expected_gradient": expected,
  }


def by_hand(out):
  """Vectors, codes and errors by the equations of section 2.2, in float64."""
  layers = jax.tree.map(np.float64, variables()[0]["to_code"])
  hidden = np.tanh(out["tokens"] @ layers["up"]["kernel"] + layers["up"]["bias"])
  h = hidden @ layers["down"]["kernel"] + layers["down"]["bias"]
  h /= np.linalg.norm(h, axis=-1, keepdims=True)
  v = np.float64(variables()[1]["codebook"]["vectors"])
  codes = ((h[:, :, None] - v) ** 2).sum(axis=-1).argmin(axis=-1)
  o, t = np.float64(out["predictions"]), np.float64(out["features"])
  norms = np.linalg.norm(o, axis=-1) * np.linalg.norm(t, axis=-1)
  distillation = 1 - (o * t).sum(axis=-1) / norms
  commitment = ((h - v[codes]) ** 2).mean(axis=-1)
  return h, codes, distillation, commitment


def test_loss_and_sums_are_the_papers():
  valid = np.array([True, True, False, True])
  out = outcome({**make_batch(), "valid": valid})
  loss = out["loss"]
  h, codes, distillation, commitment = (x[valid] for x in by_hand(out))
  assert float(loss.weight) == 3 * 9
  np.testing.assert_array_equal(out["codes"][valid], codes)
  np.testing.assert_allclose(
    loss.value(), (distillation + commitment).mean(), rtol=1e-5
  )
  for name, expected in (("distillation", distillation), ("commitment", commitment)):
    np.testing.assert_allclose(
      loss.metrics[name].value(), expected.mean(), rtol=1e-5, err_msg=name
    )
  one_hot = np.eye(6)[codes.ravel()]
  np.testing.assert_array_equal(loss.sums["counts"], one_hot.sum(axis=0))
  assert_close(loss.sums["vectors"], one_hot.T @ h.reshape(-1, 4))
  shares = np.arange(1, 6) / 15
  perplexity = np.exp(-(shares * np.log(shares)).sum())
  np.testing.assert_allclose(loss.metrics["perplexity"].value(), perplexity, rtol=1e-5)


def test_sums_of_parts_of_a_batch_add_up():
  parts = [
    outcome({**make_batch(), "valid": np.array(valid)})["loss"]
    for valid in ([True] * 4, [True, False, False, True], [False, True, True, False])
  ]
  added = jax.tree.map(jnp.add, parts[1].sums, parts[2].sums)
  assert_close(added, parts[0].sums)


def test_codes_follow_the_vectors_that_choose_them():
  """And one that no vector chose stays where it is, as it would not in an average."""
  out = outcome(make_batch())
  h, codes, _, _ = by_hand(out)
  old = np.float64(variables()[1]["codebook"]["vectors"])
  expected = old.copy()
  assert 2 < len(np.unique(codes)) < 6 and 5 not in codes
  for k in np.unique(codes):
    mean = h[codes == k].mean(axis=0)
    moved = 0.99 * old[k] + 0.01 * mean / np.linalg.norm(mean)
    expected[k] = moved / np.linalg.norm(moved)
  after = out["after"]
  assert_close(after["codebook"]["vectors"], expected)
  assert np.abs(expected - old).max() > 1e-3
  counts = 0.99 * np.arange(6) + 0.01 * np.bincount(codes.ravel(), minlength=6)
  assert_close(after["codebook"]["counts"], counts)
  teacher = variables()[1]["teacher"]
  jax.tree.map(np.testing.assert_array_equal, after["teacher"], teacher)


def test_gradients_pass_the_lookup_unchanged():
  out = outcome(make_batch())
  assert np.abs(out["through"]).max() > 0.01
  for name in ("encoder", "to_code"):
    assert_close(out["gradient"][name], out["expected_gradient"][name])


def test_the_codebook_begins_as_the_centers_of_vectors():
  """One that no vector is nearest to stays where it is, like a second of the same."""
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(40, 3))
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  grouped = np.float32(vectors).reshape(4, 10, 3)
  first = np.array([0, 1, 2, 3, 0])
  ours = jax.jit(codebook.clustered)(grouped, first)
  centers, empty = vectors[first], 0
  for _ in range(10):
    nearest = (vectors @ centers.T).argmax(axis=1)
    found = [nearest == k for k in range(5)]
    empty += sum(not mine.any() for mine in found)
    sums = [
      vectors[mine].sum(axis=0) if mine.any() else center
      for mine, center in zip(found, centers, strict=True)
    ]
    centers = sums / np.linalg.norm(sums, axis=-1, keepdims=True)
  assert empty
  assert_close(ours["vectors"], centers)


def test_the_first_codebook_does_not_depend_on_the_order_of_examples():
  _, init = made()
  batch = make_batch()
  turned = {name: rows[::-1].copy() for name, rows in batch.items()}
  one, other = (init(b).extra["codebook"] for b in (batch, turned))
  assert_close(other["vectors"], one["vectors"])
  np.testing.assert_allclose(np.linalg.norm(one["vectors"], axis=-1), 1, rtol=1e-6)
  assert len(np.unique(one["vectors"], axis=0)) == 6


def test_losses_fall_and_codes_stay_in_use():
  objective = vqkd(**{**VQKD, "num_codes": 16})
  batch = make_batch(32)
  values, _, state = train(objective, batch, steps=60, learning_rate=3e-3)
  assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])
  codes = jax.jit(objective.codes)(state.variables, batch)
  assert len(np.unique(codes)) > 4


def test_the_teacher_decides_what_is_predicted():
  wide = {**MAE, "encoder": {**MAE["encoder"], "width": 12}}
  teacher = {"name": "frozen", "objective": wide, "workdir": "runs/wide"}
  objective = vqkd(**{**VQKD, "teacher": teacher})
  assert objective.model.size == 12
  assert objective.pretrained == {"teacher": "runs/wide"}
  assert vqkd(**{**VQKD, "teacher": "ema"}).model.size == 8


@pytest.mark.parametrize(
  "name, part", [("vqkd", "teacher"), ("beit_v2", "tokenizer"), ("cae", "tokenizer")]
)
def test_the_commands_of_a_config_make_what_its_settings_begin_with(name, part):
  """In order: the convert of a teacher, the tokenizer, and what learns from it."""
  file = f"configs/image/{name}.py"
  text = ast.get_docstring(ast.parse((ROOT / file).read_text())).replace("\\\n", " ")
  commands = re.findall(r"--config (\S+)\s+--workdir (\S+)", text)
  for setting in configs.settings(file):
    spec = configs.load(f"{file}:{setting}").objective[part]
    order = [made for made, _ in commands].index(f"{file}:{setting}")
    (maker,) = {c for c, workdir in commands[:order] if workdir == spec.workdir}
    assert spec.objective == configs.load(maker).objective


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"num_codes": 1}, "num_codes=1, code_dim=4: expected at least 2"),
    ({"code_dim": 0}, "code_dim=0: expected at least 2"),
    ({"decay": 1.0}, "decay=1.0.*expected none below 0, and a decay below 1"),
    ({"commitment": -1.0}, "commitment=-1.0: expected none below 0"),
    ({"decoder": {"deptth": 2}}, "decoder.deptth: did you mean 'depth'"),
    ({"teacher": {"name": "frozn"}}, "no 'frozn' in .*teachers: did you mean 'frozen'"),
    (
      {"teacher": {"name": "frozen", "objective": {**MAE, "patch_size": 3}}},
      "expected those of 9 patches",
    ),
  ],
)
def test_wrong_hyperparameters_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    vqkd(**{**VQKD, **wrong})
