"""What older versions wrote is read with today's names."""

import json

import pytest

from maskjax import config as configs
from maskjax import curves
from maskjax import workdir as workdirs
from maskjax.errors import UserError
from maskjax.migrations import migrate

OLD = {
  "num_steps": 100,
  "objective": {
    "name": "mlm",
    "vocab_size": 512,
    "mask": {"name": "by_likeness"},
    "teacher": {"name": "frozen", "objective": {"name": "mlm"}},
  },
  "data": {
    "train": {"name": "labelled_text", "path": "mlm", "tokenizer": "by_likeness"},
    "test": {"name": "text", "statistic": "anchor_likeness"},
  },
}


def test_names_are_renamed_wherever_they_name_a_part():
  found = migrate(OLD)
  objective, data = found["objective"], found["data"]
  sampler = "maskjax.systems.text.difference_masking:by_similarity"
  assert (objective["name"], objective["mask"]["name"]) == ("bert", sampler)
  assert objective["teacher"]["objective"]["name"] == "bert"
  assert objective["teacher"]["workdir"] == "random"  # as it was then
  assert data["test"]["statistic"] == "anchor_similarity"
  # A file may be called as a part was.
  expected = {"name": "labeled_text", "path": "mlm", "tokenizer": "by_likeness"}
  assert data["train"] == expected
  assert OLD["objective"]["name"] == "mlm"


def test_migrating_twice_changes_nothing():
  assert migrate(migrate(OLD)) == migrate(OLD)


@pytest.mark.parametrize("setting", ["digits", "imagenet"])
def test_a_config_of_today_stays(setting):
  plain = configs.plain(configs.load(f"configs/image/mae.py:{setting}"))
  assert migrate(plain) == plain


def test_what_systems_did_before_is_written_out():
  objective = {"name": "exlm", "encoder": "B", "mask_ratio": 0.2}
  found = migrate({"microbatches": 1, "objective": objective})
  assert found["batch_warmup"] == [0, 0]
  assert found["objective"] == {
    "name": "exlm",
    "encoder": {"size": "B", "norm_embedded": True},
    "mask_ratio": 0.2,
    "zero_masks": False,
  }
  # One of today is as its defaults are.
  today = {**found, "objective": objective}
  assert migrate(today) == today


def test_ids_that_had_defaults_are_written_out():
  objective = migrate(OLD)["objective"]
  assert (objective["pad_id"], objective["mask_id"]) == (0, 3)
  assert objective["special_ids"] == [0, 1, 2, 3]
  given = {"objective": {"name": "bert", "vocab_size": 9, "mask_id": 5}}
  assert migrate(given)["objective"]["mask_id"] == 5
  own = {"objective": {"name": "my_lab.text:own", "vocab_size": 9}}
  assert migrate(own) == own


def test_the_runs_number_of_steps_is_dropped():
  teacher = {"name": "ema", "num_steps": 100}
  other = {"name": "ema", "num_steps": 200}
  old = {"name": "hpm", "num_steps": 100, "teacher": teacher, "other": other}
  config = {"num_steps": 100, "objective": old}
  expected = {"name": "hpm", "teacher": {"name": "ema"}, "other": other}
  assert migrate(config) == {"num_steps": 100, "objective": expected}


def test_how_a_learning_rate_falls_is_its_schedule():
  old = {"optimizer": {"name": "adamw", "falls": "line"}}
  assert migrate(old) == {"optimizer": {"name": "adamw", "schedule": "linear"}}


def test_a_classifier_is_given_the_system_whose_encoder_it_has():
  encoder = {"width": 64, "depth": 2, "heads": 4}
  old = {"name": "classification", "num_classes": 10, "encoder": encoder}
  system = {"name": "mae", "patch_size": 2, "encoder": encoder, "dtype": "bfloat16"}
  found = migrate({"objective": {**old, "patch_size": 2, "dtype": "bfloat16"}})
  expected = {"name": "classification", "num_classes": 10, "system": system}
  assert found["objective"] == expected
  assert migrate(found) == found


def test_a_workdir_of_an_older_version_is_read_and_stays_its_own(tmp_path):
  config = configs.load("configs/text/bert.py:small").copy_and_resolve_references()
  config.objective.vocab_size = 512  # as it was spelled before
  old = configs.plain(config)
  old["objective"]["name"] = "mlm"
  (tmp_path / "config.json").write_text(json.dumps(old))
  assert workdirs.read_config(tmp_path).objective.name == "bert"
  config.objective.update(pad_id=0, mask_id=3, special_ids=(0, 1, 2, 3))
  with workdirs.opened(config, tmp_path):
    pass
  config.objective.mask_id = 4
  with (
    pytest.raises(UserError, match="another config: objective.mask_id: 3, now 4"),
    workdirs.opened(config, tmp_path),
  ):
    pass


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_workdir_whose_config_is_no_object(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(UserError, match=r"config.json cannot be read: .* an object"):
    workdirs.read_config(tmp_path)


def test_a_curve_of_an_older_version(tmp_path):
  (tmp_path / "own.py").write_text("")
  column = {"step": [1, 2], "mean": [2.0, 1.5], "deviation": [0.1, 0.2]}
  stored = {"small": {"config": OLD, "curve": {"eval/loss": column}}}
  (tmp_path / "own.curves.json").write_text(json.dumps(stored))
  assert curves.ends(str(tmp_path / "own.py")) == ("small", {"eval/loss": (1.5, 0.2)})


def test_a_mask_that_is_the_system_s_default_is_dropped():
  default = migrate({"objective": {"name": "informask", "mask": "by_rate"}})
  assert default["objective"] == {"name": "informask"}
  other = migrate({"objective": {"name": "bert", "mask": "by_rate"}})
  assert other["objective"]["mask"].endswith("informask:by_rate")


def test_an_older_mfm_keeps_its_images_and_its_positions():
  vit = {"width": 64, "depth": 4, "heads": 2}
  for old, new in (
    (vit, {**vit, "positions": "sincos", "key_bias": True}),
    ("B", {"size": "B", "positions": "sincos", "key_bias": True}),
    ("resnet50", {"size": "resnet50"}),
  ):
    found = migrate({"objective": {"name": "mfm", "encoder": old, "radius": 3.0}})
    expected = {"name": "mfm", "mean": None, "std": None, "radius": 3.0}
    assert found["objective"] == {**expected, "encoder": new}
    assert migrate(found) == found


def test_a_run_without_an_initialization_was_drawn_by_xaviers():
  old = {"objective": {"name": "mae"}, "seed": 0}
  same = {"objective": {"name": "mae", "initialization": "xavier"}, "seed": 0}
  assert configs.differences(old, same) == configs.differences(same, old) == []
  other = {"objective": {"name": "mae", "initialization": "mae"}, "seed": 0}
  assert configs.differences(old, other) == [
    "objective.initialization: None, now 'mae'"
  ]
