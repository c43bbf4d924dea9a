"""The commands, and what each leaves behind."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios

import jax
import numpy as np
import pytest
from helpers.quick_xla import QUICK_XLA
from helpers.running import DIGITS, ROOT, TINY, check_refusal, listing, process
from PIL import Image
from safetensors.numpy import load_file

from maskjax import config as configs
from maskjax import systems
from maskjax import workdir as workdirs

COLUMNS = ["name", "family", "paper", "config", "agrees_with"]


def lines(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


# list


def test_list_prints_one_object_a_system(call):
  code, out, _ = call("list", "--json")
  rows = json.loads(out)
  assert code == 0
  assert all(list(row) == [*COLUMNS, "differs"] for row in rows)
  assert "mae" in [row["name"] for row in rows]
  for row in rows:
    configs.load(row["config"])
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", row["paper"])


def test_list_prints_a_table(call):
  code, out, _ = call("list")
  assert code == 0
  header, *rows = out.splitlines()
  assert header.split() == COLUMNS
  assert len(rows) == len(systems.records())


def test_the_page_of_systems_is_up_to_date(call):
  code, out, _ = call("list", "--markdown")
  assert code == 0
  assert out == (ROOT / "docs/systems.md").read_text()


# train


def test_train_leaves_what_the_readme_lists(trained):
  assert {p.name for p in trained.iterdir()} > {
    "config.json",
    "metrics.jsonl",
    "checkpoints",
  }
  config = json.loads((trained / "config.json").read_text())
  assert (config["num_steps"], config["batch_size"]) == (2, 16)
  assert {p.name for p in (trained / "checkpoints").iterdir()} == {"1", "2"}
  written = {}
  for line in lines(trained):
    written.update(line)
  assert written["step"] == 2
  assert np.isfinite([written["train/loss"], written["eval/loss"]]).all()
  assert written["train/examples_per_second"] > 0


def test_tensorboard_shows_the_same_numbers(trained):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  events = EventAccumulator(str(trained)).Reload()
  for line in lines(trained):
    step = line.pop("step")
    for name, value in line.items():
      points = {point.step: point.value for point in events.Scalars(name)}
      assert points[step] == pytest.approx(value, rel=1e-6)


def test_a_finished_run_stays_as_it_is(call, trained, tmp_path):
  copy = shutil.copytree(trained, tmp_path / "run")
  code, *_ = call("train", "--config", DIGITS, "--workdir", copy, *TINY)
  assert code == 0
  assert [list(line) for line in lines(copy)] == [list(x) for x in lines(trained)]
  before, after = listing(trained / "checkpoints"), listing(copy / "checkpoints")
  assert before == after


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
  code, _, err = process(
    "train",
    "--config",
    DIGITS,
    "--workdir",
    tmp_path / "run",
    *TINY,
    "--config.num_steps=20",
    "--config.log_every=1",
    "--config.optimizer.learning_rate=1e30",
  )
  line = check_refusal(code, err, expected=1)
  stopped = int(re.search(r"step (\d+): \w+ is (nan|inf)", line)[1])
  assert 1 < stopped < 20
  steps = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()]
  assert max(steps) == stopped - 1


def test_a_terminal_gets_a_progress_bar(tmp_path):
  ours, theirs = pty.openpty()
  termios.tcsetwinsize(theirs, (24, 140))
  run = subprocess.Popen(
    [
      *(sys.executable, "-m", "maskjax.main", "train", "--config", DIGITS),
      *("--workdir", str(tmp_path / "run"), *TINY),
      *("--config.num_steps=40", "--config.log_every=10"),
      "--config.checkpoint.every=40",
    ],
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK_XLA},
    stdout=theirs,
    stderr=subprocess.PIPE,
  )
  os.close(theirs)
  shown = b""
  while select.select([ours], [], [], 120)[0]:
    try:
      shown += os.read(ours, 4096)
    except OSError:  # the other end is closed
      break
  os.close(ours)
  assert run.wait() == 0, run.stderr.read().decode()
  run.stderr.close()
  last = [bar for bar in re.split(r"[\r\n]+", shown.decode()) if "40/40" in bar][-1]
  assert re.search(r"100%.*\[\d+:\d+<\d+:\d+", last)  # time gone and time left
  assert "train/loss=" in shown.decode() and "examples/s=" in shown.decode()


# eval


def test_eval_probes_and_draws_any_checkpoint(call, trained, tmp_path):
  copy = shutil.copytree(trained, tmp_path / "run")
  config = json.loads((copy / "config.json").read_text())
  config["eval"].update(probes=["knn", "linear"], pictures=3)
  (copy / "config.json").write_text(json.dumps(config))
  code, out, _ = call("eval", "--workdir", copy, "--step", 1)
  assert code == 0
  table = re.search(
    r"encoder +knn +linear\n"
    r"trained +(\S+) +(\S+)\nuntrained +(\S+) +(\S+)\nraw pixels +(\S+) +(\S+)\n",
    out,
  )
  values = {}
  for line in lines(copy):
    if line["step"] == 1:
      values.update(line)
  names = [
    f"eval/{prefix}{probe}"
    for prefix in ("", "untrained_", "raw_pixels_")
    for probe in ("knn", "linear")
  ]
  assert [f"{100 * values[name]:.1f}" for name in names] == list(table.groups())
  assert values["eval/raw_pixels_knn"] > 0.9  # digits are easy
  assert values["eval/mean_target_loss"] == pytest.approx(0.54077, rel=1e-4)
  picture = np.asarray(Image.open(copy / "reconstructions.png"))
  # Three columns and rows of 64-pixel tiles with gaps of 4, under a line of text.
  assert picture.shape == (16 + 4 + 3 * 68, 4 + 3 * 68, 3)
  for row in range(3):
    tiles = [
      picture[20 + 68 * row : 84 + 68 * row, 4 + 68 * i : 68 + 68 * i].astype(int)
      for i in range(3)
    ]
    # What is visible is the original's in all three: 4 of 16 patches, enlarged 8 times.
    assert (tiles[0] == tiles[1]).all(axis=2).mean() >= 0.25
    assert (np.abs(tiles[0] - tiles[2]).max(axis=2) <= 1).mean() >= 0.25


# convert


def test_weights_go_to_hugging_face_and_back(call, trained, tmp_path):
  there, back, again = tmp_path / "there", tmp_path / "back", tmp_path / "again"
  assert call("convert", "--workdir", trained, "--to_hf", there)[0] == 0
  imported = ("convert", "--config", DIGITS, "--workdir", back)
  assert call(*imported, *TINY, "--from_hf", there)[0] == 0
  assert call("convert", "--workdir", back, "--to_hf", again)[0] == 0
  assert json.loads((there / "config.json").read_text()) == json.loads(
    (again / "config.json").read_text()
  )
  one, other = (load_file(folder / "model.safetensors") for folder in (there, again))
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])
  code, out, _ = call("eval", "--workdir", back)
  assert code == 0
  theirs = next(x for x in reversed(lines(trained)) if "eval/loss" in x)
  found = float(re.search(r"eval/loss ([\d.]+)", out)[1])
  assert found == pytest.approx(theirs["eval/loss"], rel=1e-3)


# finetuning


def test_finetuning_begins_with_the_pretrained_encoder(call, trained, tmp_path):
  code, *_ = call(
    "train",
    *("--config", "configs/image/finetune.py:digits", "--workdir", tmp_path / "run"),
    f"--config.init_from={trained}",
    "--config.objective.encoder.depth=1",
    "--config.num_steps=1",
    "--config.batch_size=16",
    "--config.eval.batch_size=360",
    "--config.optimizer.warmup_steps=0",
    "--config.optimizer.learning_rate=0.0",
    "--config.optimizer.weight_decay=0.0",
  )
  assert code == 0

  def encoder(folder):
    checkpoints = workdirs.checkpoints(folder, workdirs.read_config(folder))
    params = checkpoints.restore_weights()[1]
    checkpoints.close()
    return params["encoder"]

  mine, theirs = encoder(tmp_path / "run"), encoder(trained)
  theirs.pop("norm", None)  # the classifier normalizes the mean instead
  jax.tree.map(np.testing.assert_array_equal, mine, theirs)
  assert 0 <= lines(tmp_path / "run")[-1]["eval/accuracy"] <= 1
