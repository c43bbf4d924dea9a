"""The numbers of the papers' settings stand in recipes.tsv with where they are from."""

import inspect
import json

import pytest
from helpers import recipes

from maskjax import config as configs
from maskjax import objectives, systems
from maskjax.training import optimizers

OF_BUILT = (recipes.PARAMETERS, recipes.INITIALIZATION)
ROWS = [row for row in recipes.rows() if row["key"] not in OF_BUILT]
SETTINGS = sorted({(row["system"], row["setting"]) for row in ROWS})


def built(system, setting):
  """All values of a setting by key, those left to the parts' defaults included."""
  if system == recipes.FINETUNE:
    path, factory = recipes.FINETUNE_CONFIG, objectives.classification
  else:
    (path,) = {r.config for r in systems.records() if r.name == system}
    factory = systems.find(system)
  config = configs.load(f"{path}:{setting}").copy_and_resolve_references()
  values = configs.flat(config)
  parts = {
    "objective": factory,
    "optimizer": getattr(optimizers, config.optimizer.name),
  }
  for part, function in parts.items():
    for name, parameter in inspect.signature(function).parameters.items():
      if parameter.default is not parameter.empty:
        values.setdefault(f"{part}.{name}", parameter.default)
  return values


@pytest.mark.parametrize(("system", "setting"), SETTINGS)
def test_the_config_has_the_papers_numbers(system, setting):
  values, wrong = built(system, setting), []
  for row in ROWS:
    if (row["system"], row["setting"]) != (system, setting):
      continue
    found = json.loads(json.dumps(values.get(row["key"], "nothing")))
    expected = json.loads(row["value"])
    is_number = isinstance(found, float) and isinstance(expected, float)
    if found != (pytest.approx(expected, rel=1e-6) if is_number else expected):
      wrong.append(f"{row['key']} is {found}: {row['source']} has {expected}")
  assert not wrong, "\n".join(wrong)


def test_each_number_has_a_source_and_stands_once():
  assert all(row["source"].strip() for row in ROWS)
  keys = [(row["system"], row["setting"], row["key"]) for row in ROWS]
  assert len(set(keys)) == len(keys)
