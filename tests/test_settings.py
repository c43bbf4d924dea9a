"""Every shipped setting can be built, and its large arrays have sharding rules."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers import recipes
from helpers.running import ROOT
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import experiment, objectives, resolve, sharding, systems
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables, abilities_of
from maskjax.training import optimizers

FILES = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("configs/*/*.py"))
# Settings whose arrays are small, so that replicating them costs nothing.
SMALL = ("small", "digits", "fashion_mnist")
LARGE = 2**20  # bytes
KEY = jax.eval_shape(lambda: jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Setting:
  """A setting of a config file, and the shapes of what it makes."""

  config: ConfigDict
  objective: Any
  batch: Any
  variables: Variables


@functools.cache
def settings(file: str) -> dict[str, Setting]:
  """The settings of a config file by name; computes no arrays."""
  found = {}
  for name in configs.settings(file):
    config = configs.load(f"{file}:{name}")
    assert configs.plain(config)
    if name.startswith("small"):
      config.data.train = config.data.test  # of the same vocabulary, and shorter
    config, _ = experiment.with_vocabulary(config)
    try:
      objective = resolve.build(objectives, scanned(config))
    except UserError:  # its layers differ
      objective = resolve.build(objectives, config.objective)
    batch = objective.batch_shapes(64)
    variables = jax.eval_shape(objective.init, KEY, batch)
    found[name] = Setting(config, objective, batch, variables)
  return found


def scanned(config: ConfigDict) -> ConfigDict:
  """An objective with loops over layers, which are traced in a fraction of the time."""
  copy = config.copy_and_resolve_references().objective
  for part in nested(copy):
    if "name" in part and part.name != "frozen":
      part.scan = True
  return copy


def nested(config: ConfigDict) -> Iterator[ConfigDict]:
  yield config
  for value in config.values():
    if isinstance(value, ConfigDict):
      yield from nested(value)


def large(tree: Any) -> Iterator[tuple[str, Any]]:
  for path, leaf in jax.tree.leaves_with_path(tree):
    key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    if not key and math.prod(leaf.shape) * leaf.dtype.itemsize > LARGE:
      yield sharding.path_name(path), leaf


@pytest.mark.parametrize("file", FILES)
def test_every_setting_makes_an_objective_and_an_optimizer(file):
  for name, made in settings(file).items():
    resolve.build(optimizers, made.config.optimizer, num_steps=made.config.num_steps)
    if abilities_of(made.objective).loss is None:  # a teacher
      features = jax.eval_shape(made.objective.features, made.variables, made.batch)
      assert features.ndim == 3
      continue
    if name == "small" and Path(file).stem in systems.names():
      continue  # the contract computes its loss, see helpers/contract.py
    step = Step(KEY, num_steps=made.config.num_steps)
    loss = jax.eval_shape(made.objective.loss, made.variables, made.batch, step)
    assert (loss.sum.shape, loss.sum.dtype) == ((), jnp.float32)


@pytest.mark.parametrize("file", FILES)
def test_the_papers_settings_have_the_papers_number_of_parameters(file):
  of_texts = file.startswith("configs/text") and Path(file).stem == recipes.FINETUNE
  for row in [] if of_texts else recipes.rows():
    if row["key"] == recipes.PARAMETERS and row["system"] == Path(file).stem:
      params = settings(file)[row["setting"]].variables.params
      found = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
      # Papers give two or three digits.
      assert found == pytest.approx(float(row["value"]), rel=0.01), row["source"]


@pytest.mark.parametrize("file", FILES)
def test_the_papers_settings_are_drawn_as_their_authors_draw_them(file):
  for row in recipes.rows():
    if row["key"] == recipes.INITIALIZATION and row["system"] == Path(file).stem:
      encoder = settings(file)[row["setting"]].objective.model.encoder
      found = encoder.options.initialization
      assert found == json.loads(row["value"]), row["source"]


@pytest.mark.parametrize("file", FILES)
def test_a_rule_names_every_large_array(file):
  for name, made in settings(file).items():
    if name.startswith(SMALL):
      continue
    found = dict(large(made.variables._asdict()))
    assert found, name
    unnamed = {
      path: leaf.shape
      for path, leaf in found.items()
      if sharding.rule_of(path) in sharding.FALLBACK_RULES
    }
    assert not unnamed, f"{Path(file).stem}:{name}"


def test_the_first_rule_applies_and_axes_that_do_not_divide_are_left_out():
  mesh = sharding.make_mesh(fsdp=2, tensor=2, devices=jax.devices()[:4])
  tree = {
    "encoder": {
      "tokens": jnp.zeros((6, 4)),
      "positions": jnp.zeros((5, 4)),
      "blocks": {"mlp": {"gate": {"kernel": jnp.zeros((3, 4, 8))}}},
    },
    "head": {"kernel": jnp.zeros((4, 5)), "bias": jnp.zeros(5)},
    "own": {"kernel": jnp.zeros((4, 4)), "scale": jnp.zeros(4)},
  }
  found = jax.tree.map(lambda s: s.spec, sharding.shardings(tree, mesh))
  assert found["encoder"] == {
    "tokens": P("tensor", "fsdp"),
    "positions": P(None, "fsdp"),
    "blocks": {"mlp": {"gate": {"kernel": P(None, "fsdp", "tensor")}}},
  }
  assert found["head"] == {"kernel": P("fsdp", None), "bias": P(None)}
  assert found["own"] == {"kernel": P("fsdp", None), "scale": P(None)}
