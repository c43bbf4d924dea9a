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
  assert all(row["source"].strip() for row in recipes.rows())
  keys = [(row["system"], row["setting"], row["key"]) for row in recipes.rows()]
  assert len(set(keys)) == len(keys)


# What a setting trains with that is in a paper's table or in its authors' code.
NEEDED = {"batch_size", "num_steps", "objective.initialization", recipes.PARAMETERS}
RECIPE = (
  *("name", "learning_rate", "warmup_steps", "schedule", "final_learning_rate"),
  *("b1", "b2", "epsilon", "weight_decay", "no_decay", "clip_norm"),
)
# Of no paper: sizes to plan with, and what runs in minutes.
OWN = ("imagenet_2b", "small", "digits", "fashion_mnist")


@pytest.mark.parametrize("record", systems.records(), ids=lambda record: record.name)
def test_every_setting_of_a_paper_is_covered(record):
  for setting in configs.settings(record.config):
    if setting.startswith(OWN):
      continue
    config = configs.load(f"{record.config}:{setting}")
    optimizer = inspect.signature(getattr(optimizers, config.optimizer.name)).parameters
    needed = NEEDED | {f"optimizer.{key}" for key in RECIPE if key in optimizer}
    needed |= {"optimizer.name"}
    if config.optimizer.get("drop_at"):
      needed -= {"optimizer.schedule", "optimizer.final_learning_rate"}
    if record.family == "image":
      needed |= {"data.train_transforms"}
    keys = {
      row["key"]
      for row in recipes.rows()
      if (row["system"], row["setting"]) == (record.name, setting)
    }
    assert needed <= keys, f"{setting}: {sorted(needed - keys)}"
