"""Features that need more than parameters get it, wherever they are read."""

import json

import pytest

from maskjax import config as configs
from maskjax import experiment, runs
from maskjax.errors import UserError


def make_config(objective, **more):
  config = configs.load("configs/image/mae.py:digits")
  del config.objective
  config.objective = objective
  config.update(dict(num_steps=3, batch_size=16, log_every=1))
  config.optimizer.warmup_steps = 0
  config.checkpoint.every = 3
  config.eval.batch_size = 360
  config.eval.update({"probes": ("knn",), "pictures": 2, **more})
  return config


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "counted"
  runs.train(make_config(dict(name="helpers.reading:counts")), folder)
  return folder


def metrics_of(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_probes_and_pictures_read_it(counted):
  values = metrics_of(counted)[-1]
  assert values["eval/knn"] == values["eval/raw_pixels_knn"] > 0.9
  assert values["eval/untrained_knn"] < 0.2
  assert (counted / "reconstructions.png").exists()


def test_probes_of_a_checkpoint_read_it(counted):
  before = metrics_of(counted)[-1]
  runs.evaluate(counted)
  assert metrics_of(counted)[-1]["eval/knn"] == before["eval/knn"]


def test_frozen_teachers_begin_with_it(counted, tmp_path):
  """A teacher's output differs between images: it knows how many steps it took."""
  teacher = dict(
    name="frozen", objective=dict(name="helpers.reading:counts"), workdir=str(counted)
  )
  config = make_config(dict(name="helpers.reading:pupil", teacher=teacher), probes=())
  runs.train(config, tmp_path / "taught")
  first = metrics_of(tmp_path / "taught")[0]
  assert first["train/spread"] > 0.01


def test_a_frozen_teacher_is_random_only_where_that_is_asked_for(tmp_path):
  teacher = dict(name="frozen", objective=dict(name="helpers.reading:counts"))
  config = make_config(dict(name="helpers.reading:pupil", teacher=teacher), probes=())
  expected = "objective.teacher.workdir='': expected .* or 'random' for random ones"
  with pytest.raises(UserError, match=expected):
    runs.train(config, tmp_path / "taught")
  assert not (tmp_path / "taught").exists()
  with config.unlocked():
    config.objective.teacher.workdir = "random"
  assert experiment.beginning(experiment.prepare(config)) is None
