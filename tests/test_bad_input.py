"""Mistakes of users: one line that names them, and not a file changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.running import (
  DIGITS,
  TINY,
  Refused,
  check_refusal,
  listing,
  process,
  tiny_config,
)
from PIL import Image
from safetensors.numpy import load_file, save_file

from maskjax import experiment
from maskjax import workdir as workdirs
from maskjax.convert import weights

OTHER_SOURCE = """
from maskjax import config as configs

def get_config(root):
  config = configs.load("configs/image/mae.py:digits")
  config.batch_size = 8
  config.data.train = dict(name="image_folder", root=root, channels=1)
  config.data.test = {}
  return config
"""


@pytest.fixture
def own_config(tmp_path: Path) -> Path:
  file = tmp_path / "folder.py"
  file.write_text(OTHER_SOURCE)
  return file


def images(folder: Path, count: int = 8, *, shape: tuple[int, ...] = (8, 8)) -> Path:
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  for i in range(count):
    pixels = rng.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
  return folder


# ---- values of a config or a flag -------------------------------------------------

WRONG = {
  "misspelt_key": (
    ["--config.objective.mask_rati=0.5"],
    ["--config.objective.mask_rati", "did you mean 'objective.mask_ratio'?"],
  ),
  "misspelt_group": (
    ["--config.optimzer.learning_rate=0.5"],
    ["--config.optimzer.learning_rate", "'optimizer.learning_rate'"],
  ),
  "key_below_a_value": (
    ["--config.num_steps.more=1"],
    ["--config.num_steps.more", "did you mean 'num_steps'?"],
  ),
  "key_like_no_other": (["--config.zzz=1"], ["--config.zzz", "num_steps"]),
  "unknown_flag": (["--workdirr=/nowhere"], ["workdirr", "workdir"]),
  "word_too_many": (["now"], ["'now'", "flags"]),
  "whole_number": (
    ["--config.num_steps=1e4"],
    ["--config.num_steps=1e4", "expected int", "for example 2"],
  ),
  "number": (
    ["--config.objective.mask_ratio=abc"],
    ["--config.objective.mask_ratio=abc", "expected float", "0.75"],
  ),
  "truth": (
    ["--config.objective.norm_pix_loss=maybe"],
    ["--config.objective.norm_pix_loss=maybe", "expected bool", "False"],
  ),
  "whole_group": (
    ["--config.optimizer=adamw"],
    ["--config.optimizer ", "no single value", "--config.optimizer.name"],
  ),
  "tuple": (
    ["--config.objective.image_size=16"],
    ["size (16,)", "(height, width)"],
  ),
  "no_value": (["--config.seed"], ["config.seed", "value"]),
  "step": (["--step=last"], ["step", "last", "int"]),
  "no_steps": (["--config.num_steps=0"], ["num_steps=0", "at least 1"]),
  "keeps_none": (
    ["--config.checkpoint.keep=0"],
    ["checkpoint.keep=0", "at least 1"],
  ),
  "no_eval_batch": (
    ["--config.eval.batch_size=0"],
    ["eval.batch_size=0", "at least 1"],
  ),
  "negative_seed": (["--config.seed=-1"], ["seed", "-1", "0 to 2**32 - 1"]),
  "patch_size": (
    ["--config.objective.patch_size=3"],
    ["patch_size=3x3", "image_size=8x8", "divisor"],
  ),
  "hides_nothing": (["--config.objective.mask_ratio=0"], ["mask_ratio=0", "between"]),
  "hides_all": (["--config.objective.mask_ratio=1"], ["mask_ratio=1", "between"]),
  "above_one": (["--config.objective.mask_ratio=1.5"], ["mask_ratio=1.5", "between"]),
  "below_zero": (
    ["--config.objective.mask_ratio=-0.1"],
    ["mask_ratio=-0.1", "between"],
  ),
  "no_number": (["--config.objective.mask_ratio=nan"], ["mask_ratio=nan", "between"]),
  "hides_all_rounded": (
    ["--config.objective.mask_ratio=0.99"],
    ["mask_ratio=0.99", "16 of 16 tokens", "at least one"],
  ),
  "heads": (
    ["--config.objective.encoder.heads=3"],
    ["encoder.width=64", "encoder.heads=3", "multiple"],
  ),
  "decoder_heads": (
    ["--config.objective.decoder.heads=3"],
    ["decoder.width=32", "decoder.heads=3", "multiple"],
  ),
  "objective": (["--config.objective.name=mqe"], ["'mqe'", "did you mean 'mae'?"]),
  "import_path": (
    ["--config.objective.name=no_such_lab.mae:mae"],
    ["no_such_lab.mae:mae", "No module named"],
  ),
  "optimizer": (["--config.optimizer.name=adam"], ["'adam'", "'adamw'"]),
  "warmup": (
    ["--config.optimizer.warmup_steps=9"],
    ["warmup_steps=9", "fewer than", "num_steps=2"],
  ),
  "split": (["--config.data.test.split=tset"], ["'tset'", "did you mean 'test'?"]),
  "transform": (["--config.data.train_transforms=('to_flot',)"], ["'to_float'"]),
  "probe": (
    ["--config.eval.probes=('kn',)"],
    ["eval.probes", "'kn'", "did you mean 'knn'?"],
  ),
  "image_size": (
    ["--config.objective.image_size=(16,16)"],
    ["8x8x1", "expected 16x16x1", "objective.image_size"],
  ),
  "channels": (
    ["--config.objective.channels=3"],
    ["8x8x1", "expected 8x8x3", "objective.channels"],
  ),
  "batch_over_mesh": (
    ["--config.batch_size=12", "--config.mesh.fsdp=2"],
    ["batch_size=12", "multiple of 8", "mesh.data=4", "mesh.fsdp=2"],
  ),
  "batch_over_microbatches": (
    ["--config.batch_size=32", "--config.microbatches=3"],
    ["batch_size=32", "multiple of 24", "microbatches=3"],
  ),
  "batch_warmup": (
    ["--config.batch_size=32", "--config.batch_warmup=(64, 5)"],
    ["batch_warmup=(64, 5)", "from 1 to 32 rows"],
  ),
  "no_microbatches": (["--config.microbatches=0"], ["microbatches=0"]),
  "eval_batch_over_mesh": (
    ["--config.eval.batch_size=12"],
    ["eval.batch_size=12", "multiple of 8"],
  ),
  "mesh_fills_part": (
    ["--config.mesh.fsdp=3"],
    ["mesh.fsdp=3", "the 8 devices"],
  ),
  "mesh_too_large": (
    ["--config.mesh.data=4", "--config.mesh.tensor=4"],
    ["mesh.data=4", "mesh.tensor=4", "the 8 devices"],
  ),
  "init_from": (
    ["--config.init_from=/no/such/run"],
    ["/no/such/run", "expected a workdir with a config.json"],
  ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_named_and_change_no_file(
  case: str, refused: Refused, trained: Path, tmp_path: Path
) -> None:
  arguments, message = WRONG[case]
  before = listing(trained)
  for workdir in (tmp_path / "new", trained):
    line = refused("train", "--config", DIGITS, "--workdir", workdir, *TINY, *arguments)
    for words in message:
      assert words in line
  assert not (tmp_path / "new").exists()
  assert listing(trained) == before


def test_a_small_mask_ratio_masks_one_patch() -> None:
  # 0.01 of 16 patches is rounded as MAE rounds it: up, to one.
  config = tiny_config()
  config.objective.mask_ratio = 0.01
  assert experiment.prepare(config).objective.masking.num_masked == 1


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/image/mea.py"], ["did you mean 'configs/image/mae.py'?"]),
    (["--config=configs/image/mae.py:digit"], ["did you mean 'digits'?"]),
    (["--config"], ["--config", "expected FILE"]),
    ([], ["--config is missing"]),
    ([*TINY], ["--config.key=value", "expected --config FILE"]),
  ],
)
def test_configs_that_cannot_be_found(
  arguments: list[str], message: list[str], refused: Refused, tmp_path: Path
) -> None:
  line = refused("train", "--workdir", tmp_path / "new", *arguments)
  for words in message:
    assert words in line
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def get_config(:", "SyntaxError"),
    ("import no_such_module", "No module named 'no_such_module'"),
    ("x = 1", "get_config"),
    ("def get_config(): return 1", "a config is of type int: expected a ConfigDict"),
    (
      "import ml_collections\n"
      "def get_config(): return ml_collections.ConfigDict({'num_steps': 1})",
      "lacks batch_size, batch_warmup, checkpoint",
    ),
    ("def get_config():\n  raise KeyError('gone')", "gone"),
  ],
)
def test_config_files_that_are_wrong(
  text: str, message: str, refused: Refused, tmp_path: Path
) -> None:
  file = tmp_path / "mine.py"
  file.write_text(text)
  line = refused("train", "--config", file, "--workdir", tmp_path / "new")
  assert str(file) in line and message in line
  assert not (tmp_path / "new").exists()


def test_commands_and_folders_that_are_missing(
  refused: Refused, trained: Path, tmp_path: Path
) -> None:
  before = listing(trained)
  line = refused("trian")
  assert "'trian'" in line and "did you mean 'train'?" in line
  assert "--workdir is missing" in refused("train", "--config", DIGITS, *TINY)
  assert "--workdir is missing" in refused("eval")
  line = refused("eval", "--workdir", tmp_path)
  assert str(tmp_path) in line and "config.json" in line
  line = refused("eval", "--workdir", tmp_path / "none")
  assert str(tmp_path / "none") in line and "config.json" in line
  line = refused("eval", "--workdir", trained, "--step", 7)
  assert "step 7" in line and "[1, 2]" in line
  line = refused("convert", "--workdir", trained)
  assert "--from_hf" in line and "--to_hf" in line
  assert listing(trained) == before
  assert list(tmp_path.iterdir()) == []


def test_a_config_that_does_not_fit_the_checkpoint(
  refused: Refused, trained: Path
) -> None:
  before = listing(trained)
  wider = [*TINY, "--config.objective.encoder.width=32"]
  line = refused("eval", "--workdir", trained, "--config", DIGITS, *wider)
  assert str(trained) in line and "decoder/embed/kernel" in line
  assert "[64, 32]" in line and "expected [32, 32]" in line
  line = refused(
    "train", "--config", DIGITS, "--workdir", trained.parent / "new", *wider,
    f"--config.init_from={trained}",
  )  # fmt: skip
  assert "init_from" in line and "64" in line and "32" in line
  assert not (trained.parent / "new").exists()
  assert listing(trained) == before


# ---- the data ---------------------------------------------------------------------


def test_image_folders_that_are_missing_or_empty(
  refused: Refused, own_config: Path, tmp_path: Path
) -> None:
  for name in ("missing", "empty"):
    root = tmp_path / name
    spec = f"{own_config}:{root}"
    line = refused("train", "--config", spec, "--workdir", tmp_path / "new")
    assert str(root) in line
    assert ("no folder" if name == "missing" else "no images") in line
    (tmp_path / "empty").mkdir(exist_ok=True)
  assert not (tmp_path / "new").exists()


def test_images_of_another_shape(
  refused: Refused, own_config: Path, tmp_path: Path
) -> None:
  spec = f"{own_config}:{images(tmp_path / 'images', shape=(12, 10))}"
  line = refused("train", "--config", spec, "--workdir", tmp_path / "new")
  assert "12x10x1" in line and "expected 8x8x1" in line
  Image.new("L", (8, 8)).save(tmp_path / "images" / "odd.png")
  line = refused(
    "train", "--config", spec, "--workdir", tmp_path / "new", "--config.batch_size=16"
  )
  assert "'image'" in line and "[8, 8, 1]" in line and "[12, 10, 1]" in line
  assert not (tmp_path / "new").exists()


def test_a_truncated_image_is_named(
  refused: Refused, own_config: Path, tmp_path: Path
) -> None:
  broken = images(tmp_path / "images") / "3.png"
  broken.write_bytes(broken.read_bytes()[:60])
  spec = f"{own_config}:{broken.parent}"
  line = refused("train", "--config", spec, "--workdir", tmp_path / "new")
  assert "record 3" in line and str(broken) in line
  assert not (tmp_path / "new").exists()


def test_a_missing_fashion_mnist(refused: Refused, tmp_path: Path) -> None:
  line = refused(
    "train",
    "--config=configs/image/mae.py:fashion_mnist",
    "--config.data.train.root=/no/such/folder",
    f"--workdir={tmp_path / 'new'}",
  )
  assert "/no/such/folder" in line and "dataset-fashion-mnist" in line
  assert not (tmp_path / "new").exists()


# ---- a workdir of something else --------------------------------------------------


def test_another_config_in_a_workdir(refused: Refused, trained: Path) -> None:
  before = listing(trained)
  train = ["train", "--config", DIGITS, "--workdir", trained, *TINY]
  line = refused(*train, "--config.optimizer.learning_rate=0.125")
  assert str(trained) in line
  assert "optimizer.learning_rate: 0.005, now 0.125" in line
  line = refused(*train, "--config.num_steps=3", "--config.seed=1")
  assert "num_steps: 2, now 3" in line and "seed: 0, now 1" in line
  assert listing(trained) == before


def test_free_keys_may_change(
  call: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path
) -> None:
  workdir = shutil.copytree(trained, tmp_path / "copy")
  shutil.rmtree(workdir / "checkpoints" / "2")
  code, out, err = call(
    "train", "--config", DIGITS, "--workdir", workdir, *TINY,
    "--config.log_every=1", "--config.mesh.fsdp=2", "--config.microbatches=2",
  )  # fmt: skip
  assert (code, err) == (0, "")
  assert "step 2/2" in out and "step 1/2" not in out
  assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2"]
  written = json.loads((workdir / "config.json").read_text())
  assert written["log_every"] == 1 and written["mesh"]["fsdp"] == 2


def test_weights_alone_are_not_a_run(refused: Refused, tmp_path: Path) -> None:
  config = tiny_config()
  prepared = experiment.prepare(config)
  workdir = tmp_path / "weights"
  with workdirs.opened(config, workdir):
    checkpoints = workdirs.checkpoints(workdir, config)
    checkpoints.save_weights(0, prepared.untrained().params)
    checkpoints.close()
  before = listing(workdir)
  line = refused("train", "--config", DIGITS, "--workdir", workdir, *TINY)
  assert str(workdir) in line and "weights only" in line and "init_from" in line
  assert listing(workdir) == before


def test_a_workdir_without_its_config(
  refused: Refused, trained: Path, tmp_path: Path
) -> None:
  workdir = shutil.copytree(trained, tmp_path / "copy")
  (workdir / "config.json").unlink()
  before = listing(workdir)
  line = refused("train", "--config", DIGITS, "--workdir", workdir, *TINY)
  assert str(workdir) in line and "config.json" in line
  assert listing(workdir) == before
  (workdir / "config.json").write_text("{")
  line = refused("eval", "--workdir", workdir)
  assert str(workdir / "config.json") in line


def test_a_file_instead_of_a_workdir(refused: Refused, tmp_path: Path) -> None:
  (tmp_path / "file").write_text("mine")
  for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
    line = refused("train", "--config", DIGITS, "--workdir", workdir, *TINY)
    assert str(workdir) in line
    assert "File exists" in line or "Not a directory" in line
  assert (tmp_path / "file").read_text() == "mine"


# ---- weights of others ------------------------------------------------------------


@pytest.fixture(scope="module")
def hf_folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("hf") / "vit_mae"
  weights.export_weights(trained, folder)
  return folder


def drop(tensors: dict[str, np.ndarray]) -> None:
  del tensors["decoder.mask_token"]


def add(tensors: dict[str, np.ndarray]) -> None:
  tensors["vit.pooler.dense.bias"] = np.zeros(3, np.float32)


def transpose(tensors: dict[str, np.ndarray]) -> None:
  name = "decoder.decoder_embed.weight"
  tensors[name] = np.ascontiguousarray(tensors[name].T)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (drop, ["1 missing (decoder.mask_token)"]),
    (add, ["1 unknown (vit.pooler.dense.bias)"]),
    (transpose, ["1 misshapen", "embed.weight: expected [32, 64], found [64, 32]"]),
  ],
)
def test_tensors_that_do_not_fit(
  change: Callable[[dict[str, np.ndarray]], None],
  message: list[str],
  refused: Refused,
  hf_folder: Path,
  tmp_path: Path,
) -> None:
  folder = shutil.copytree(hf_folder, tmp_path / "hf")
  tensors = load_file(folder / "model.safetensors")
  change(tensors)
  save_file(tensors, folder / "model.safetensors")
  line = refused(
    "convert", "--from_hf", folder, "--config", DIGITS, "--workdir", tmp_path / "new"
  )
  for words in message:
    assert words in line
  assert not (tmp_path / "new").exists()


def test_folders_of_weights_that_are_broken(
  refused: Refused, trained: Path, hf_folder: Path, tmp_path: Path
) -> None:
  folder = shutil.copytree(hf_folder, tmp_path / "hf")
  convert = ["convert", "--from_hf", folder, "--config", DIGITS, "--workdir"]
  before = listing(trained)
  line = refused(*convert, trained)
  assert str(trained) in line and "expected a new one" in line
  assert listing(trained) == before
  file = folder / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-100])
  assert str(file) in refused(*convert, tmp_path / "new")
  file.unlink()
  assert str(file) in refused(*convert, tmp_path / "new")
  (folder / "config.json").write_text('{"model_type": "vit"}')
  (folder / "model.safetensors").write_bytes((hf_folder / file.name).read_bytes())
  line = refused(*convert, tmp_path / "new")
  assert "model_type='vit'" in line and "expected 'vit_mae'" in line
  (folder / "config.json").unlink()
  assert str(folder / "config.json") in refused(*convert, tmp_path / "new")
  shutil.rmtree(folder)
  assert str(folder) in refused(*convert, tmp_path / "new")
  assert not (tmp_path / "new").exists()
  before = listing(hf_folder)
  line = refused("convert", "--workdir", trained, "--to_hf", hf_folder)
  assert str(hf_folder) in line and "exists already" in line
  assert listing(hf_folder) == before


# ---- the whole process ------------------------------------------------------------


def test_libraries_add_no_noise(own_config: Path, tmp_path: Path) -> None:
  """A record that fails in a thread of the data pipeline."""
  broken = images(tmp_path / "images") / "3.png"
  broken.write_bytes(broken.read_bytes()[:60])
  spec = f"{own_config}:{broken.parent}"
  code, out, err = process("train", "--config", spec, "--workdir", tmp_path / "new")
  assert str(broken) in check_refusal(code, err)
  assert out == ""
  assert not (tmp_path / "new").exists()


def test_simulated_devices_are_counted() -> None:
  assert jax.device_count() == 8  # what the messages above name
