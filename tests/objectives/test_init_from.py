"""What a run begins with that `init_from` names, for each kind of encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import shaken

from maskjax import config as configs
from maskjax import experiment, objectives, resolve
from maskjax import workdir as workdirs
from maskjax.errors import UserError
from maskjax.models import stack_blocks
from maskjax.models.relative_bias import resized
from maskjax.objectives import Variables, classification
from maskjax.objectives.patches import collections
from maskjax.systems import mae
from maskjax.tokens import sincos
from maskjax.training import TrainState, transfer

KEY = jax.random.key(5)
SMALL = dict(width=8, depth=1, heads=2)
IMAGES = dict(image_size=8, channels=1, patch_size=2)
RESNET = dict(
  name="resnet",
  widths=(4, 8),
  depths=(1, 1),
  bottleneck=False,
  stem_stride=1,
  stem_width=4,
)
SPARK = dict(name="spark", image_size=8, channels=1, decoder_width=8)
MAE = dict(name="mae", encoder=SMALL, decoder=SMALL, **IMAGES)
RELATIVE = dict(name="simmim", mask_patch_size=2, encoder=SMALL, **IMAGES)
SWIN = dict(
  name="simmim",
  encoder_type="swin",
  image_size=8,
  channels=1,
  patch_size=1,
  mask_patch_size=2,
  encoder=dict(width=8, depths=(1, 2), heads=(1, 2), window=4),
)
# A system for each kind of encoder, and how it is finetuned.
KINDS = {
  "sincos": (MAE, {}),
  "sincos, learned from there on": (MAE, dict(positions="learned_sincos")),
  "learned": (dict(name="maskfeat", cell_size=2, encoder=SMALL, **IMAGES), {}),
  "relative": (RELATIVE, {}),
  "relative, of each block": (RELATIVE, dict(block_bias=True, scan=True)),
  "rotary and registers": (
    dict(name="capi", encoder=SMALL, predictor=SMALL, **IMAGES),
    {},
  ),
  "swin": (SWIN, {}),
  "resnet": ({**SPARK, "encoder": RESNET}, {}),
  "convnext": (
    {
      **SPARK,
      "encoder": dict(name="convnext", widths=(4, 8), depths=(1, 2), stem_stride=2),
    },
    {},
  ),
}


def variables_of(objective, seed=0):
  shapes = jax.eval_shape(objective.init, KEY, objective.batch_shapes(4))
  positive = jax.tree.map(abs, shaken(shapes.extra, seed))
  return Variables(shaken(shapes.params, seed), positive)


def begun(objective, pretrained, *, adopt=None):
  """The variables that an objective begins with, from fresh ones of another seed."""
  fresh = variables_of(objective, seed=1)
  if getattr(objective.encoder, "positions", "") == "learned_sincos":
    begin = jax.eval_shape(objective.init, KEY, objective.batch_shapes(4)).params
    table = sincos(objective.encoder.grid, begin["encoder"]["positions"].shape[1])
    fresh.params["encoder"]["positions"] = table
  adopt = adopt or objective.adopt
  own = transfer.transfer(fresh.params, pretrained=pretrained.params, adopt=adopt)
  if not fresh.extra:
    return Variables(own(fresh.params)), own
  averages = transfer.transfer(
    fresh.extra["statistics"], pretrained=pretrained.extra["statistics"], adopt=adopt
  )
  extra = {"statistics": averages(fresh.extra["statistics"])}
  return Variables(own(fresh.params), extra), own


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifiers_features_are_the_encoders(kind):
  spec, how = KINDS[kind]
  system = resolve.build(objectives, spec)
  finetuned = classification(num_classes=3, system=spec, drop_path=0.3, **how)
  pretrained = variables_of(system)
  begins, _ = begun(finetuned, pretrained)
  side = spec["image_size"]
  image = np.random.default_rng(0).normal(size=(3, side, side, 1)).astype("f")
  batch = {"image": image}

  @jax.jit
  def both(begins, pretrained):
    encoder = system.encoder
    if hasattr(encoder, "final_norm"):  # the classifier's is of the mean
      encoder = encoder.clone(final_norm=False)
    parts = collections(pretrained).items()
    given = {name: part["encoder"] for name, part in parts if "encoder" in part}
    tokens = encoder.patch_tokens(encoder.apply(given, system.patches(batch)))
    return finetuned.features(begins, batch), tokens

  found, expected = both(begins, pretrained)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  # The head is new, also where the system has one of that name.
  fresh = variables_of(finetuned, seed=1)
  for name, layer in begins.params.items():
    if name != "encoder":
      jax.tree.map(np.testing.assert_array_equal, layer, fresh.params[name])


@functools.cache
def names(kind):
  """Paths of what is taken, left and new, of a classifier of a kind."""
  spec, how = KINDS[kind]
  finetuned = classification(num_classes=3, system=spec, **how)
  _, found = begun(finetuned, variables_of(resolve.build(objectives, spec)))
  return transfer.report({"params": found})


def test_the_report_says_what_was_taken_what_was_left_and_what_is_new():
  assert names("sincos") == [
    "taken: encoder",
    "left: decoder, encoder/norm",
    "new: head, norm",
  ]
  assert names("sincos, learned from there on")[2] == (
    "new: encoder/positions, head, norm"
  )
  # A mask token is of no use, and the system's head has the classifier's name.
  assert names("relative")[1] == "left: encoder/mask_token, encoder/norm, head"
  assert names("swin")[1:] == ["left: encoder/mask_token, head", "new: head"]


def without(tree, path):
  *parts, last = path.split("/")
  copy = at = dict(tree)
  for part in parts:
    at[part] = dict(at[part])
    at = at[part]
  del at[last]
  return copy


@pytest.mark.parametrize("with_adopt", [True, False])
@pytest.mark.parametrize("path", ["encoder/cls", "encoder/transformer/block_0"])
def test_a_missing_part_of_the_encoder_stops(path, with_adopt):
  spec, _ = KINDS["sincos"]
  finetuned, system = classification(num_classes=3, system=spec), mae_system()
  pretrained = variables_of(system)
  pretrained = Variables(without(pretrained.params, path))
  target = finetuned if with_adopt else system
  with pytest.raises(UserError, match=f"init_from: {path}.* is missing: expected all"):
    begun(target, pretrained, adopt=target.adopt if with_adopt else transfer.same_paths)


def mae_system():
  return resolve.build(objectives, KINDS["sincos"][0])


@pytest.mark.parametrize("kind", ["relative", "learned", "rotary and registers"])
def test_a_part_of_the_encoder_that_would_be_lost_stops(kind):
  """Of another system than the run's: relative table, scales, positions, registers."""
  other = resolve.build(objectives, KINDS[kind][0])
  finetuned = classification(num_classes=3, system=KINDS["sincos"][0])
  with pytest.raises(UserError, match="init_from: encoder/.*(no place|is missing)"):
    begun(finetuned, variables_of(other))


def test_the_last_normalization_may_move_to_the_mean():
  finetuned = classification(num_classes=3, system=KINDS["sincos"][0], norm="moved")
  pretrained = variables_of(mae_system())
  begins, moved = begun(finetuned, pretrained)
  jax.tree.map(
    np.testing.assert_array_equal,
    begins.params["norm"],
    pretrained.params["encoder"]["norm"],
  )
  assert transfer.report({"params": moved}) == [
    "taken: encoder, norm",
    "left: decoder",
    "new: head",
  ]


def test_arrays_of_other_shapes_are_named():
  wider = mae(**IMAGES, encoder={**SMALL, "width": 12}, decoder=SMALL)
  finetuned = classification(num_classes=3, system=KINDS["sincos"][0])
  with pytest.raises(
    UserError, match=r"init_from: encoder/cls has the shape \[1, 1, 12\]: .*\[1, 1, 8\]"
  ):
    begun(finetuned, variables_of(wider))


def test_another_model_altogether_is_named():
  fresh = variables_of(mae_system()).params
  with pytest.raises(
    UserError, match="init_from: none of its 2 parameters .* example decoder/embed"
  ):
    transfer.transfer(fresh, pretrained={"a": np.ones(2), "b": {"c": np.ones(2)}})


def test_scanned_blocks_are_those_of_a_loop():
  finetuned = classification(num_classes=3, system=KINDS["sincos"][0])
  pretrained = variables_of(mae_system())
  begins, _ = begun(finetuned, Variables(stack_blocks(pretrained.params)))
  jax.tree.map(
    np.testing.assert_array_equal,
    begins.params["encoder"]["transformer"],
    pretrained.params["encoder"]["transformer"],
  )


@pytest.mark.parametrize("extra", [0, 3])
def test_relative_positions_of_a_larger_grid(extra):
  """Near offsets keep their bias, the farthest ones theirs, and heads stay apart."""
  rng = np.random.default_rng(0)
  offsets = np.arange(-5, 6)
  smooth = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 9).reshape(-1, 1)
  table = np.float32(np.concatenate([smooth, 2 * smooth], axis=1))
  rest = rng.normal(size=(extra, 2)).astype("f")
  found = resized(np.concatenate([table, rest]), 13 * 13 + extra)
  grid = found[: 13 * 13].reshape(13, 13, 2)
  np.testing.assert_array_equal(found[13 * 13 :], rest)
  np.testing.assert_allclose(grid[..., 1], 2 * grid[..., 0], rtol=1e-5)
  assert grid[6, 6, 0] == pytest.approx(1, abs=1e-4)
  assert grid[6, 7, 0] == pytest.approx(np.exp(-1 / 9), abs=1e-3)
  assert grid[0, 6, 0] == pytest.approx(np.exp(-25 / 9), abs=1e-3)
  with pytest.raises(UserError, match="a table of 9 rows cannot be resized to 10"):
    resized(np.ones((9, 1)), 10)


def test_a_swins_windows_may_grow():
  finetuned = classification(num_classes=3, system=SWIN, image_size=16, window=8)
  begins, _ = begun(finetuned, variables_of(resolve.build(objectives, SWIN)))
  encoder = begins.params["encoder"]
  assert encoder["stage_0_block_0"]["relative"]["table"].shape == (15 * 15, 1)


def tiny(objective, **optimizer):
  """A run of one step on digits."""
  config = configs.load("configs/image/mae.py:digits").copy_and_resolve_references()
  config.update(dict(num_steps=1, batch_size=16, log_every=1))
  config.optimizer.update(warmup_steps=0, **optimizer)
  with config.unlocked():
    config.objective = objective
  config.eval.update(dict(probes=(), pictures=0, batch_size=360))
  return config


def save(config, folder):
  """Leaves a run that trained no step, and gives its variables."""
  variables = variables_of(resolve.build(objectives, config.objective))
  with workdirs.opened(config, folder) as opened:
    checkpoints = workdirs.checkpoints(opened.folder, config)
    params, extra = variables
    step = jnp.zeros((), jnp.int32)
    state = TrainState(step=step, params=params, extra=extra, opt_state=())
    checkpoints.save(1, state, {})
    checkpoints.close()
  return variables


def test_a_run_is_finetuned_by_its_name_alone(tmp_path):
  """Its system comes from its own config.json, its running averages from `extra`."""
  spec = KINDS["resnet"][0]
  saved = save(tiny(spec), tmp_path / "pretrained")
  config = tiny(dict(name="classification", num_classes=10, system="mae"))
  config.init_from = str(tmp_path / "pretrained")
  prepared = experiment.prepare(config)
  assert configs.plain(prepared.config)["objective"]["system"]["name"] == "spark"
  begins = experiment.beginning(prepared)
  report = [line.partition(": ")[2] for line in begins.report]
  assert report[0] == "taken: encoder, statistics" and report[2] == "new: head"
  found = begins(variables_of(prepared.objective, seed=1))
  same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
  same(found.params["encoder"], saved.params["encoder"])
  same(found.extra["statistics"]["encoder"], saved.extra["statistics"]["encoder"])


def test_a_classifier_is_finetuned_again(tmp_path):
  first = tiny(dict(name="classification", num_classes=3, system=MAE))
  save(first, tmp_path / "first")
  again = tiny(dict(name="classification", num_classes=10, system="mae"))
  again.init_from = str(tmp_path / "first")
  prepared = experiment.prepare(again)
  assert configs.plain(prepared.config)["objective"]["system"]["name"] == "mae"
  assert experiment.beginning(prepared).report[2].endswith("new: head, norm")


# Weights that have to be those of a config


def test_check_same_takes_equal_names_and_shapes():
  old = variables_of(mae_system()).params
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
