"""The README's code is run as it stands there."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from maskjax import config as configs
from maskjax import experiment, metrics, runs
from maskjax.objectives import Step, Variables

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word):
  (code,) = [code for code in BLOCKS if word in code]
  return code


def test_custom_objective_learns_on_the_mesh_of_all_devices():
  code = block("class HalfMasked")
  assert len(code[: code.index("\ndata =")].splitlines()) <= 30
  names: dict = {}
  exec(code, names)
  jax, state = names["jax"], names["state"]
  assert int(state.step) == 300
  batch = next(names["data"](0))
  key = jax.random.key(1)

  def loss(params):
    return float(
      names["HalfMasked"]().loss(Variables(params), batch, Step(key)).value()
    )

  trained, zero = loss(state.params), loss(jax.tree.map(np.zeros_like, state.params))
  assert trained < 0.5 * zero


def test_library_in_ten_lines():
  names: dict = {}
  exec(block("mean_loss"), names)
  jax, trained = names["jax"], names["trained"]
  assert 0 < jax.jit(names["mean_loss"])(trained.params) < names["loss"]
  slopes = jax.tree.map(lambda g: float(abs(g).max()), names["gradient"])
  assert all(slope > 0 for slope in jax.tree.leaves(slopes))


def test_config_of_ones_own_images(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path("my_images").mkdir()
  rng = np.random.default_rng(0)
  for i in range(3):
    pixels = rng.integers(0, 256, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(f"my_images/{i}.jpg")
  names: dict = {}
  exec(block("my_images"), names)
  config = names["get_config"]()
  config.objective.encoder = dict(width=64, depth=1, heads=1)  # quicker than ViT-L
  prepared = experiment.prepare(config)
  assert prepared.example["image"].shape == (256, 224, 224, 3)


def test_config_of_ones_own_texts(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path("my_texts").mkdir()
  for i in range(9):
    Path(f"my_texts/{i}.txt").write_text(f"the text of file {i}, and more of it\n" * 90)
  names: dict = {}
  exec(block("my_texts"), names)
  prepared = experiment.prepare(names["get_config"]())
  assert prepared.example["token"].shape == (32, 128)


def test_custom_objective_by_its_import_path(tmp_path, monkeypatch):
  code = block("class HalfMasked")
  (tmp_path / "my_lab").mkdir()
  (tmp_path / "my_lab/objectives.py").write_text(code[: code.index("\ndata =")])
  monkeypatch.syspath_prepend(tmp_path)
  (spec,) = re.findall(r'config.objective = (dict\(name="my_lab.*?\))', README)
  config = configs.load("configs/image/mae.py:digits")
  config.num_steps, config.checkpoint.every, config.log_every = 40, 40, 10
  config.optimizer.warmup_steps = 0
  config.eval.batch_size = 360
  config.objective = eval(spec)
  runs.train(config, tmp_path / "run")
  lines = metrics.read_json_lines(tmp_path / "run/metrics.jsonl")
  losses = [line["train/loss"] for line in lines if "train/loss" in line]
  assert len(losses) == 4 and losses[-1] < 0.8 * losses[0]
