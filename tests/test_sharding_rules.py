"""Every large array of every shipped system has a sharding rule that names it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers.running import ROOT
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import experiment, sharding
from maskjax.errors import UserError

FILES = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("configs/*/*.py"))
# Settings whose arrays are small, so that replicating them costs nothing.
SMALL = ("small", "digits", "fashion_mnist")
LARGE = 2**20  # bytes


def settings(file: str) -> list[str]:
  """The names of the settings of a config file that are not small."""
  return [name for name in configs.settings(file) if not name.startswith(SMALL)]


def scanned(config: ConfigDict) -> ConfigDict:
  """A copy with loops over layers, which are traced in a fraction of the time."""
  copy = config.copy_and_resolve_references()
  for part in nested(copy.objective):
    if "name" in part and part.name != "frozen":
      part.scan = True
  return copy


def nested(config: ConfigDict) -> Iterator[ConfigDict]:
  yield config
  for value in config.values():
    if isinstance(value, ConfigDict):
      yield from nested(value)


def shapes(config: ConfigDict) -> Any:
  """The shapes of an objective's variables; computes no arrays."""
  objective, _, _ = experiment.build_system(config, learns=False)
  batch = objective.batch_shapes(config.batch_size)
  found = jax.eval_shape(objective.init, jax.random.key(0), batch)
  return {"params": found.params, "extra": found.extra}


def large(tree: Any) -> Iterator[tuple[str, Any]]:
  for path, leaf in jax.tree.leaves_with_path(tree):
    key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    if not key and math.prod(leaf.shape) * leaf.dtype.itemsize > LARGE:
      yield sharding.path_name(path), leaf


@pytest.mark.parametrize("file", FILES)
def test_a_rule_names_every_large_array(file):
  for name in settings(file):
    config = configs.load(f"{file}:{name}")
    try:
      variables = shapes(scanned(config))
    except UserError:  # its layers differ
      variables = shapes(config)
    found = dict(large(variables))
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
