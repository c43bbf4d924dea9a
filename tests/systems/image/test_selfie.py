"""Selfie: its attention pooling against torch, its choice by hand."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image import digits

from maskjax.errors import UserError
from maskjax.losses import squared_error
from maskjax.objectives import Step, Variables
from maskjax.systems import selfie
from maskjax.systems.image import selfie as module

torch = pytest.importorskip("torch")

ENCODER = {
  "name": "resnet",
  "widths": (6, 8),
  "depths": (1, 1),
  "bottleneck": False,
  "stem_stride": 1,
  "stem_width": 6,
}
POOLING = {"depth": 2, "heads": 2, "mlp_ratio": 0.75}
KEY = jax.random.key(7)
STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """Each similarity is regressed by itself: no choice among masked patches."""
  monkeypatch.setattr(module, "cross_entropy", squared_error)


def make(**more):
  """Images of 8 x 12 pixels in patches of 4 x 4, of which 3 of 6 are masked."""
  tiny = {"image_size": (8, 12), "patch_size": 4, "mask_ratio": 0.5}
  return selfie(**{**tiny, "encoder": ENCODER, "pooling": POOLING, **more})


def make_batch():
  return {
    "image": random(4, 8, 12, 3),
    "index": np.arange(4),
    "valid": np.array([True, True, True, False]),
  }


@functools.cache
def compiled(positions="rows_columns"):
  """A Selfie with random variables, and all that it computes of a batch."""
  objective = make(positions=positions)
  made = jax.eval_shape(objective.init, KEY, make_batch())
  extra = jax.tree.map(lambda x: 0.5 + np.abs(random(*x.shape)), made.extra)
  params = shaken(made.params)
  # So that few activations are 0.
  params["encoder"] = jax.tree.map_with_path(
    lambda path, x: x + (path[-1].key == "bias"), params["encoder"]
  )
  variables = Variables(params, extra)

  @jax.jit
  def run(variables, batch):
    collections = {"params": variables.params, **variables.extra}
    mask = objective.mask(batch, STEP)
    patches = objective.patches(batch)
    of_encoder = {name: tree["encoder"] for name, tree in collections.items()}
    return {
      "masked": mask.masked,
      "logits": objective.model.apply(collections, patches, mask),
      "vectors": objective.model.encoder.apply(of_encoder, patches, method="each"),
      "loss": objective.loss(variables, batch, STEP),
      "evaluated": objective.evaluate(variables, batch, STEP),
      "features": objective.features(variables, batch),
    }

  def all_of(batch, variables=variables):
    return SimpleNamespace(**jax.device_get(run(variables, batch)))

  return variables, all_of


def pixels_of(n):
  row, column = divmod(n, 3)
  return slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)


def paint(batch, where, change):
  """Changes the pixels of the patches that `where` names."""
  image = batch["image"].copy()
  for b, n in np.argwhere(where):
    image[b][pixels_of(n)] = change(image[b][pixels_of(n)])
  return {**batch, "image": image}


def tensor(array):
  return torch.from_numpy(np.array(array))


def torch_pooling(params):
  """Pre-norm layers of torch, with our parameters."""
  layers = []
  for i in range(2):
    own = params[f"block_{i}"]
    layer = torch.nn.TransformerEncoderLayer(
      *(8, 2, 6),
      dropout=0.0,
      activation="gelu",
      layer_norm_eps=1e-6,
      batch_first=True,
      norm_first=True,
    ).eval()
    attention, mlp = own["attention"], own["mlp"]
    three = [attention[name] for name in ("query", "key", "value")]
    with torch.no_grad():
      for theirs, ours in (
        (
          layer.self_attn.in_proj_weight,
          np.concatenate([x["kernel"].T for x in three]),
        ),
        (layer.self_attn.in_proj_bias, np.concatenate([x["bias"] for x in three])),
        (layer.self_attn.out_proj.weight, attention["out"]["kernel"].T),
        (layer.self_attn.out_proj.bias, attention["out"]["bias"]),
        (layer.linear1.weight, mlp["up"]["kernel"].T),
        (layer.linear1.bias, mlp["up"]["bias"]),
        (layer.linear2.weight, mlp["down"]["kernel"].T),
        (layer.linear2.bias, mlp["down"]["bias"]),
        (layer.norm1.weight, own["attention_norm"]["scale"]),
        (layer.norm1.bias, own["attention_norm"]["bias"]),
        (layer.norm2.weight, own["mlp_norm"]["scale"]),
        (layer.norm2.bias, own["mlp_norm"]["bias"]),
      ):
        theirs.copy_(tensor(ours))
    layers.append(layer)
  return lambda x: functools.reduce(lambda x, layer: layer(x), layers, x)


@pytest.mark.parametrize("positions", ["rows_columns", "each"])
def test_positions_are_compared_with_patches(positions):
  """U of the query and the visible patches; u + position against each masked patch."""
  variables, run = compiled(positions)
  params, out = variables.params, run(make_batch())
  if positions == "each":
    table = params["positions"]
  else:
    table = np.array(
      [
        params["rows"][r, 0] + params["columns"][0, c]
        for r in range(2)
        for c in range(3)
      ]
    )
  pool = torch_pooling(params["pooling"])
  norm = params["norm"]
  expected = []
  for b in range(4):
    masked = np.flatnonzero(out.masked[b])
    visible = np.flatnonzero(~out.masked[b])
    tokens = [params["query"], *(out.vectors[b, visible] + table[visible])]
    with torch.no_grad():
      u = pool(tensor(np.stack(tokens))[None])[0, 0].double().numpy()
    u = (u - u.mean()) / np.sqrt(u.var() + 1e-6) * norm["scale"] + norm["bias"]
    expected.append(
      [[(u + table[m]) @ out.vectors[b, k] for k in masked] for m in masked]
    )
  assert (np.abs(expected) > 0.01).mean() > 0.5
  assert_close(out.logits, np.array(expected))


def test_loss_by_hand():
  """Each masked position picks its own patch among those masked in the same image."""
  _, run = compiled()
  out = run(make_batch())
  logits = out.logits.astype(np.float64)
  assert logits.shape == (4, 3, 3)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  expected = -np.mean([log_p[b, m, m] for b in range(3) for m in range(3)])
  assert out.evaluated.weight == out.loss.weight == 9
  np.testing.assert_allclose(out.evaluated.value(), expected, rtol=1e-5)
  right = np.mean([logits[b, m].argmax() == m for b in range(3) for m in range(3)])
  np.testing.assert_allclose(
    out.evaluated.metrics["accuracy"].value(), right, rtol=1e-6
  )
  assert abs(out.loss.value() / expected - 1) > 1e-3  # by the batch's own statistics


def test_a_patch_is_seen_by_itself():
  _, run = compiled()
  batch = make_batch()
  before = run(batch)
  one = np.zeros_like(before.masked)
  masked = np.flatnonzero(before.masked[1])
  one[1, masked[2]] = True
  after = run(paint(batch, one, np.flip))
  changed = np.abs(after.logits - before.logits) > 1e-4
  # Another patch to choose from, and the same queries.
  assert changed[1, :, 2].all() and not changed[1, :, :2].any()
  assert not np.delete(changed, 1, axis=0).any()
  visible = np.zeros_like(one)
  visible[1, np.flatnonzero(~before.masked[1])[0]] = True
  after = run(paint(batch, visible, np.flip))
  assert (after.logits != before.logits)[1].all()


def test_masked_patches_may_be_swapped():
  """Swapping two masked patches swaps the columns of what they are compared by."""
  _, run = compiled()
  batch = make_batch()
  before = run(batch)
  image = batch["image"].copy()
  for b in range(4):
    first, second, _ = (pixels_of(n) for n in np.flatnonzero(before.masked[b]))
    image[b][first], image[b][second] = (
      batch["image"][b][second],
      batch["image"][b][first],
    )
  after = run({**batch, "image": image})
  assert_close(after.logits, before.logits[:, :, [1, 0, 2]])


def test_features_are_of_whole_images_by_the_patch_network_alone():
  variables, run = compiled()
  out = run(make_batch())
  assert out.features.shape == (4, 4 * 6, 8)
  changed = jax.tree.map(np.zeros_like, variables.params)
  only = {**changed, "encoder": variables.params["encoder"]}
  np.testing.assert_array_equal(
    run(make_batch(), Variables(only, variables.extra)).features, out.features
  )


def test_it_learns_to_choose_without_collapsing():
  objective = selfie(
    image_size=8,
    channels=1,
    patch_size=4,
    encoder=ENCODER,
    pooling=POOLING,
    mask_ratio=0.5,
  )
  losses, state = digits.train(objective, 150)
  assert losses[-10:].mean() < 0.65 < np.log(2)  # by chance, of one of two
  features = jax.jit(objective.features)(state.variables, digits.held_out(64))
  means = np.asarray(features).mean(axis=1)
  spectrum = np.linalg.svd(means - means.mean(axis=0), compute_uv=False)
  assert (spectrum > 0.01 * spectrum[0]).sum() >= 3


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"positions": "rows"}, "positions='rows': there are: each, rows_columns"),
    ({"mask_ratio": 0.1}, "mask_ratio=0.1 masks 1 patch: expected at least 2"),
    (
      {"pooling": {"heads": 3}},
      "pooling.width=8: expected a multiple of pooling.heads",
    ),
    ({"pooling": {"head": 3}}, "pooling.head: did you mean 'heads'"),
    ({"encoder": "resnet5"}, "no convolutional encoder 'resnet5'"),
    ({"patch_size": 5}, "patch_size=5x5 does not divide"),
    ({"remat": "some"}, "remat='some': expected"),
  ],
  ids=str,
)
def test_hyperparameters_that_do_not_fit_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    make(**wrong)
