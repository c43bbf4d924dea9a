"""From names to parts, and from files to configs."""

import functools
import json
import types

import pytest
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import objectives, resolve
from maskjax.errors import UserError
from maskjax.masking import samplers
from maskjax.training import optimizers


def huber(error, *, delta=1.0):
  return min(error**2 / 2, delta * (abs(error) - delta / 2))


def anything(**keywords):
  return keywords


def make_room():
  """A module with two public functions, a public class and a private function."""
  room = types.ModuleType("my_lab.losses")
  room.huber, room.anything, room.Loss, room._hidden = huber, anything, dict, huber
  room.__all__ = ["Loss", "anything", "huber"]
  return room


ROOM = make_room()


def test_find_by_name_and_by_path():
  assert resolve.find(ROOM, "huber") is huber
  assert resolve.find(samplers, "random") is samplers.random
  assert resolve.find(ROOM, "maskjax.masking.samplers:random") is samplers.random


@pytest.mark.parametrize("name", ["hubert", "_hidden", "Loss", "random", ""])
def test_find_of_no_such_name_lists_those_there_are(name):
  with pytest.raises(UserError) as error:
    resolve.find(ROOM, name)
  message = str(error.value)
  assert f"no {name!r} in my_lab.losses" in message
  assert "there are: anything, huber" in message
  assert ("did you mean 'huber'?" in message) == (name == "hubert")
  assert "import path" in message


@pytest.mark.parametrize(
  "name", ["no_such_module:f", "math:no_such_function", ":f", "math:", "a.b.c:d"]
)
def test_find_of_no_such_path_names_it(name):
  with pytest.raises(UserError, match=f"cannot import '{name}': "):
    resolve.find(ROOM, name)


def test_find_of_an_older_name_gives_today_s():
  with pytest.raises(UserError, match="no 'mlm' in .*objectives: it is 'bert' now"):
    resolve.find(objectives, "mlm")
  with pytest.raises(UserError, match="no 'abilities_of' in .*: there are: ") as error:
    resolve.find(objectives, "abilities_of")
  assert "abilities_of," not in str(error.value)


def test_find_of_what_cannot_be_called():
  with pytest.raises(UserError, match="math:pi"):
    resolve.build(ROOM, "math:pi")


def test_build_calls_with_keywords():
  spec = {"name": "anything", "a": 1, "b": 2}
  assert resolve.build(ROOM, spec) == {"a": 1, "b": 2}
  assert resolve.build(ROOM, spec, b=3, c=4) == {"a": 1, "b": 2, "c": 4}
  assert spec["name"] == "anything"  # the config is left as it was
  assert resolve.build(ROOM, "anything", c=4) == {"c": 4}
  assert resolve.build(ROOM, ConfigDict(spec)) == {"a": 1, "b": 2}
  assert resolve.build(ROOM, {"name": "builtins:complex", "real": 2}) == 2


def test_bind_keeps_keywords_for_later():
  bound = resolve.bind(ROOM, {"name": "huber", "delta": 0.5})
  assert bound(2.0) == pytest.approx(0.875)
  assert resolve.bind(ROOM, "huber")(2.0) == pytest.approx(1.5)


@pytest.mark.parametrize("use", [resolve.build, resolve.bind])
def test_keywords_that_a_part_does_not_take(use):
  with pytest.raises(
    UserError, match="'huber' takes no 'detla': did you mean 'delta'.*delta, error"
  ):
    use(ROOM, {"name": "huber", "detla": 1})
  with pytest.raises(UserError, match=r"a part needs a 'name' beside \['delta'\]"):
    use(ROOM, {"delta": 1})
  with pytest.raises(UserError, match="no 'huber2'"):
    use(ROOM, {"name": "huber2"})


def test_keywords_that_a_part_needs():
  with pytest.raises(UserError, match="'adamw' .*learning_rate"):
    resolve.build(optimizers, {"name": "adamw"}, num_steps=10)


def test_did_you_mean():
  assert resolve.did_you_mean("zzz", ["b", "a"]) == "there are: a, b"
  assert resolve.did_you_mean("blok", {"block": 1, "random": 2}) == (
    "did you mean 'block'? (there are: block, random)"
  )


# Configs

IMAGENET = "configs/image/mae.py:imagenet"
SETTINGS = ["digits", "fashion_mnist", "imagenet", "imagenet_2b", "small"]
CONFIG = """
from maskjax import config as configs

def get_config(size=None):
  config = configs.defaults()
"""


@pytest.mark.parametrize("setting", SETTINGS)
def test_shipped_settings_name_parts_there_are(setting):
  config = configs.load(f"configs/image/mae.py:{setting}").copy_and_resolve_references()
  assert set(configs.defaults()) <= set(config)
  assert config.num_steps > config.optimizer.warmup_steps > 0
  assert resolve.build(objectives, config.objective).masking.num_masked > 0
  resolve.build(optimizers, config.optimizer, num_steps=config.num_steps)


def test_the_first_setting_is_taken_without_a_name():
  whole = configs.load("configs/image/mae.py:digits")
  assert configs.load("configs/image/mae.py") == whole


def test_own_configs_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert configs.load(IMAGENET).objective.encoder.size == "L"
  # One of the user's own, at the same place, comes first.
  own = tmp_path / "configs" / "image" / "mae.py"
  own.parent.mkdir(parents=True)
  own.write_text(CONFIG + "  config.seed = 3\n  return config\n")
  assert configs.load("configs/image/mae.py").seed == 3


def load_text(folder, text, argument=""):
  (folder / "mine.py").write_text(text)
  return configs.load(f"{folder}/mine.py{argument}")


@pytest.mark.parametrize(
  ("text", "argument", "message"),
  [
    ("x = 1", "", "no setting: expected a public function .* or a get_config"),
    ("def small(): return 1", "", "no setting: expected a public function"),
    ("def small(): return 1", ":small", "a config is of type int"),
    ("def small(): return 1 / 0", "", "ZeroDivisionError: division by zero"),
    ("def get_config(:", "", "SyntaxError"),
    ("import no_such_module", "", "ModuleNotFoundError: .*no_such_module"),
    ("def get_config(): return 1 / 0", "", "ZeroDivisionError: division by zero"),
    ("def get_config(): return 1", ":small", "get_config takes no setting"),
    ("def get_config(size): return 1", "", "TypeError: missing .* 'size'"),
    ("def get_config(): return {}", "", ".* type dict: expected a ConfigDict"),
    (CONFIG + "  del config.mesh, config.seed\n  return config", "", ".* lacks "),
  ],
)
def test_files_that_are_no_config(tmp_path, text, argument, message):
  with pytest.raises(UserError, match=f"mine.py: {message}"):
    load_text(tmp_path, text, argument)


def test_settings_and_files_that_are_not_there(tmp_path):
  with pytest.raises(
    UserError, match=r"mae.py: no setting 'digit': did you mean 'digits'.*imagenet_2b"
  ):
    configs.load("configs/image/mae.py:digit")
  with pytest.raises(
    UserError,
    match="no config file 'configs/image/mea.py': did you mean 'configs/image/mae.py'",
  ):
    configs.load("configs/image/mea.py:digits")
  (tmp_path / "notes.txt").write_text("x")
  with pytest.raises(UserError, match="notes.txt: expected a Python file"):
    configs.load(f"{tmp_path}/notes.txt")


OWN = """
from maskjax import config as configs

def width(of):
  return 2 * of

def names():
  return ["not a setting"]

def small(seed=1):
  config = configs.defaults()
  config.seed = seed
  return config

def _base():
  return configs.defaults()

def large(**more):
  return small(width(of=4))
"""


def test_settings_are_the_functions_that_give_a_config(tmp_path):
  assert load_text(tmp_path, OWN).seed == 1
  assert load_text(tmp_path, OWN, ":large").seed == 8
  path = f"{tmp_path}/mine.py"
  assert configs.settings(path) == ["small", "large"]
  for name in ("width", "_base", "configs", "Large"):
    with pytest.raises(
      UserError, match=rf"mine.py: no setting '{name}': .*large, small"
    ):
      configs.load(f"{path}:{name}")


def test_settings_of_one_name(tmp_path):
  again = OWN + "\ndef small():\n  return _base()\n"
  with pytest.raises(UserError, match=r"mine.py: two functions are called 'small', in"):
    load_text(tmp_path, again, ":large")


def test_files_with_a_get_config_list_no_settings(tmp_path):
  load_text(tmp_path, CONFIG + "  return config\n")
  assert configs.settings(f"{tmp_path}/mine.py") == []
  (tmp_path / "mine.py").write_text("x = 1")
  with pytest.raises(UserError, match="mine.py: no setting: expected a public"):
    configs.settings(f"{tmp_path}/mine.py")


def test_own_settings_are_listed():
  assert sorted(configs.settings("configs/image/mae.py")) == SETTINGS


def test_an_argument_reaches_get_config(tmp_path):
  text = CONFIG + "  config.init_from = str(size)\n  return config\n"
  assert load_text(tmp_path, text, ":a:b").init_from == "a:b"
  assert load_text(tmp_path, text).init_from == "None"


@pytest.mark.parametrize(
  "make", [configs.defaults, functools.partial(configs.load, IMAGENET)]
)
def test_plain_configs_survive_json(make):
  plain = configs.plain(make())
  text = json.dumps(plain, allow_nan=False)
  assert json.loads(text) == plain
  again = configs.plain(ConfigDict(json.loads(text)))
  assert again == plain
  assert configs.differences(plain, again) == []
  assert plain["mesh"] == {"data": -1, "fsdp": 1, "tensor": 1}
  assert set(plain) == set(make())


def test_plain_refuses_what_json_does_not_know():
  with pytest.raises(UserError, match="JSON"):
    configs.plain(ConfigDict({"a": object()}))


def test_flat():
  assert configs.flat({"a": {"b": {"c": 1}, "d": (2, 3)}, "e": None}) == {
    "a.b.c": 1,
    "a.d": (2, 3),
    "e": None,
  }


def test_differences_leave_out_free_keys():
  old, new = configs.defaults(), configs.defaults()
  new.mesh.fsdp = 4
  new.microbatches = 2
  new.eval.probes = ("knn",)
  new.checkpoint.every = 7
  new.data.num_threads = 9
  new.data.prefetch = 9
  new.log_every = 1
  new.profile = (1, 2)
  new.compilation_cache = "cache"
  new.wandb_project = "project"
  assert configs.differences(configs.plain(old), configs.plain(new)) == []


def test_differences_name_all_others():
  old, new = configs.defaults(), configs.defaults()
  old.optimizer.learning_rate = 0.1
  new.optimizer.learning_rate = 0.2
  new.optimizer.b2 = 0.9
  old.data.train_transforms = ("to_float",)
  new.seed = 1
  new.evaluation = 1  # begins like a free key, and is none
  assert configs.differences(configs.plain(old), configs.plain(new)) == [
    "data.train_transforms: ['to_float'], now []",
    "evaluation: None, now 1",
    "optimizer.b2: None, now 0.9",
    "optimizer.learning_rate: 0.1, now 0.2",
    "seed: 0, now 1",
  ]


@pytest.mark.parametrize("batch_size", [4096, 1024, 1000])
def test_imagenets_schedule_follows_the_batch_size(batch_size):
  """The paper's table 8: 800 epochs, 40 of warm-up, 1.5e-4 for each 256 images."""
  config = configs.load(IMAGENET)
  config.batch_size = batch_size
  config = config.copy_and_resolve_references()
  epoch = 1_281_167 // batch_size
  assert config.num_steps == 800 * epoch
  assert config.optimizer.warmup_steps == 40 * epoch
  assert config.optimizer.learning_rate == pytest.approx(1.5e-4 * batch_size / 256)
  assert config.checkpoint.every == 5 * epoch
  assert configs.plain(config)["num_steps"] == 800 * epoch


def test_imagenet_is_the_papers_table_8():
  config = configs.load(IMAGENET).copy_and_resolve_references()
  assert config.optimizer.learning_rate == pytest.approx(2.4e-3)
  assert (config.optimizer.b1, config.optimizer.b2) == (0.9, 0.95)
  assert config.optimizer.weight_decay == 0.05
  objective = resolve.build(objectives, config.objective)
  assert (objective.patches.grid, objective.masking.num_masked) == ((14, 14), 147)
  encoder, decoder = objective.model.encoder, objective.model.decoder
  assert (encoder.width, encoder.depth, encoder.heads) == (1024, 24, 16)
  assert (decoder.width, decoder.depth, decoder.heads) == (512, 8, 16)
