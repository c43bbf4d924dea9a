"""Brings configs and curves that older versions wrote to today's names."""

from collections.abc import Mapping
from typing import Any

# What the parts of a config were called before, wherever they are named.
NAMES = {
  "anchor_likeness": "anchor_similarity",
  "by_class": "maskjax.systems.text.time_variant_masking:by_class",
  "by_likeness": "maskjax.systems.text.difference_masking:by_similarity",
  "by_rate": "maskjax.systems.text.informask:by_rate",
  "labelled_text": "labeled_text",
  "maskjax.data.word_classes:english": "maskjax.data.taggers:english",
  "mlm": "bert",
  "terms_and_words": "maskjax.systems.text.mslm:terms_and_words",
}
# Masks that older configs wrote out and today's leave to their system.
_DEFAULT_MASKS = {
  "difference_masking": NAMES["by_likeness"],
  "informask": NAMES["by_rate"],
}
_NAMING_KEYS = ("mask", "name", "statistic", "tagger")

# What text systems took for the ids that a config left out. Today a run's config has
# all of them, read off its data.
_IDS = {"pad_id": 0, "mask_id": 3, "special_ids": [0, 1, 2, 3]}

# What a classifier took before it was given the system whose encoder it has.
_OF_ENCODER = (
  *("image_size", "channels", "patch_size", "encoder"),
  *("dtype", "mlp_ratio", "norm_epsilon", "scan", "remat"),
)


def migrate(config: Mapping[str, Any]) -> dict[str, Any]:
  """Brings a run's config to today's names.

  A config of today comes back as it is, except that ids of tokens which it leaves out
  are added, as is "random" for a workdir that a frozen teacher leaves out, and a mask
  that is its system's default is left out. Two configs should
  thus be compared when both are migrated.

  Args:
    config: as `config.json` has it, see `maskjax.config.plain`.

  Example:
    >>> old = {"num_steps": 9, "objective": {"name": "mlm", "mask": "whole_words"}}
    >>> migrate(old)["objective"]
    {'name': 'bert', 'mask': 'whole_words'}
  """
  found = _renamed(config)
  if "microbatches" in found and "batch_warmup" not in found:
    found = _before_warm_ups({**found, "batch_warmup": [0, 0]})
  optimizer = found.get("optimizer")
  if isinstance(optimizer, dict) and "falls" in optimizer:
    falls = optimizer.pop("falls")
    optimizer["schedule"] = {"line": "linear"}.get(falls, falls)
  objective = found.get("objective")
  if not isinstance(objective, dict):
    return found
  # Objectives are given the run's number of steps with each step.
  objective = _without_num_steps(objective, found.get("num_steps"))
  if objective.get("mask", "") == _DEFAULT_MASKS.get(str(objective.get("name"))):
    del objective["mask"]
  if objective.get("name") == "mfm" and "mean" not in objective:
    objective = _older_mfm(objective)
  if objective.get("name") == "classification" and "system" not in objective:
    system = {key: objective.pop(key) for key in _OF_ENCODER if key in objective}
    objective["system"] = {"name": "mae", **system}
  # A system from elsewhere may have a vocab_size, and know nothing of the others.
  if "vocab_size" in objective and ":" not in str(objective.get("name")):
    objective = {**_IDS, **objective}
  return {**found, "objective": objective}


def _older_mfm(objective: Mapping[str, Any]) -> dict[str, Any]:
  """MFM's hyperparameters before it cut off images, and had the paper's positions."""
  encoder = objective.get("encoder", "B")
  shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  if "name" not in shape and not str(shape.get("size")).startswith(("res", "conv")):
    shape = {"positions": "sincos", "key_bias": True, **shape}
  return {**objective, "mean": None, "std": None, "encoder": shape}


def migrate_curves(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Brings the content of a `*.curves.json` to today's names.

  Args:
    stored: by setting, its `config` and its `curve`, see `maskjax.curves`.

  Example:
    >>> column = {"step": [1], "mean": [2.0], "deviation": [0.1]}
    >>> old = {"small": {"config": {}, "curve": {"train/loss": column}}}
    >>> migrate_curves(old)["small"]["curve"]["train/loss"]
    {'step': [1], 'mean': [2.0], 'std': [0.1]}
  """
  return {
    setting: {
      "config": migrate(recorded["config"]),
      "curve": {
        name: {"std" if key == "deviation" else key: v for key, v in columns.items()}
        for name, columns in recorded["curve"].items()
      },
    }
    for setting, recorded in stored.items()
  }


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
  """Today's names in place of older ones, at any depth."""
  found: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping):
      found[key] = _renamed(value)
      # Weights that were random by default, and have to be asked for today.
      if value.get("name") == "frozen" and not value.get("workdir"):
        found[key]["workdir"] = "random"
    elif key in _NAMING_KEYS and isinstance(value, str):
      found[key] = NAMES.get(value, value)
    else:
      found[key] = value
  return found


def _before_warm_ups(config: dict[str, Any]) -> dict[str, Any]:
  """Writes out what systems did before configs had a warm-up of the batch.

  Args:
    config: of a whole run, without other names of older versions.
  """
  objective = config.get("objective")
  if not isinstance(objective, dict) or objective.get("name") != "exlm":
    return config
  encoder = objective.get("encoder", "B")
  encoder = {"size": encoder} if isinstance(encoder, str) else encoder
  encoder = {"norm_embedded": True, **encoder}
  return {**config, "objective": {"zero_masks": False, **objective, "encoder": encoder}}


def _without_num_steps(values: Mapping[str, Any], num_steps: Any) -> dict[str, Any]:
  """Leaves out each `num_steps` that is the run's, at any depth."""
  return {
    key: _without_num_steps(value, num_steps) if isinstance(value, Mapping) else value
    for key, value in values.items()
    if key != "num_steps" or value != num_steps
  }
