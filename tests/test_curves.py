"""Runs are recorded, and a fresh one is held against them."""

import importlib
import json

import pytest
from helpers.running import ROOT, check_refusal

from maskjax import curves
from maskjax.errors import UserError

OWN = """
from maskjax import config as configs

def small():
  config = configs.load("configs/image/mae.py:digits")
  config.num_steps = 20
  config.batch_size = 16
  config.log_every = 5
  config.optimizer.warmup_steps = 0
  config.objective.encoder.depth = 1
  config.objective.decoder.width = 32
  config.eval.batch_size = 360
  config.eval.probes = ()
  config.eval.pictures = 0
  return config

def other():
  return small()
"""

STORED = sorted(
  str(file.relative_to(ROOT)).replace(".curves.json", ".py")
  for file in (ROOT / "configs").rglob("*.curves.json")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("curves")
  (folder / "own.py").write_text(OWN)
  return folder


@pytest.fixture
def recorded(folder, call):
  """`FILE:ARG` of a config with a curve of two runs."""
  spec = f"{folder / 'own.py'}:small"
  if not (folder / "own.curves.json").exists():
    assert call("check", "--config", spec, "--record", "--seeds", 2)[0] == 0
  return spec


def test_a_run_like_those_recorded_is_in_the_band(recorded, call):
  code, out, err = call("check", "--config", recorded, "--config.seed=1")
  assert (code, err) == (0, "")
  assert out.endswith("all 5 numbers are in their bands\n")  # 4 of training, 1 held out


def test_another_loss_is_not(recorded, call, monkeypatch):
  module = importlib.import_module("maskjax.systems.image.mae")
  right = module.squared_error
  monkeypatch.setattr(module, "squared_error", lambda a, b: 4 * right(a, b))
  code, out, err = call("check", "--config", recorded)
  line = check_refusal(code, err, expected=1)
  assert "outside of their bands, first train/loss at step 5" in line
  assert "outside" in out


def test_another_config_has_another_curve(recorded, call):
  command = ("check", "--config", recorded, "--config.optimizer.learning_rate=1e-4")
  code, _, err = call(*command)
  assert "optimizer.learning_rate: 0.005, now 0.0001" in check_refusal(code, err)


def test_a_setting_without_a_curve(recorded, call):
  code, _, err = call("check", "--config", recorded.replace("small", "other"))
  assert "no curve of 'other': expected one of: small" in check_refusal(code, err)


def test_seeds_of_a_curve(recorded, folder, call):
  before = (folder / "own.curves.json").read_text()
  code, _, err = call("check", "--config", recorded, "--record", "--seeds", 1)
  assert "seeds=1: expected at least 2" in check_refusal(code, err)
  assert (folder / "own.curves.json").read_text() == before
  assert json.loads(before)["small"]["curve"]["train/loss"]["step"] == [5, 10, 15, 20]


def test_the_band():
  curve = {"train/loss": {"step": [1, 2], "mean": [2.0, 4.0], "std": [0.1, 0.0]}}
  first, second = curves.compare(curve, {"train/loss": {1: 2.6, 2: 4.03}})
  assert (first.lowest, first.highest) == pytest.approx((1.5, 2.5))
  assert (second.lowest, second.highest) == pytest.approx((3.96, 4.04))
  assert not first.is_inside and second.is_inside
  with pytest.raises(UserError, match="no train/loss at step 2"):
    list(curves.compare(curve, {"train/loss": {1: 2.0}}))
