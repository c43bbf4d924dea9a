"""Checkpoints that are damaged or unfinished, and workdirs that are in use."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.running import (
  DIGITS,
  ROOT,
  TINY,
  check_refusal,
  check_warning,
  listing,
  process,
  tiny_config,
)

from maskjax import workdir as workdirs
from maskjax.errors import RunWarning, UserError
from maskjax.objectives import Variables
from maskjax.training import TrainState
from maskjax.training.checkpoints import Checkpoints


def state(step):
  return TrainState(
    step=jnp.int32(step),
    params={"kernel": step * jnp.arange(5000.0)},
    extra={},
    opt_state={"mu": jnp.full(7, step)},
  )


@pytest.fixture
def saves(tmp_path):
  """Checkpoints of steps 1, 2 and 3, of which nobody knows yet."""
  writer = Checkpoints(tmp_path / "checkpoints", keep=3)
  for step in (1, 2, 3):
    writer.save(step, state(step), {})
  writer.close()
  reader = Checkpoints(tmp_path / "checkpoints", keep=3)
  yield reader
  reader.close()


def files(folder):
  """The files of a checkpoint that checksums cover, largest first."""
  folder = Path(folder)
  found = [path for path in folder.rglob("*") if path.is_file()]
  covered = json.loads((folder / "checksums.json").read_text())
  found = [path for path in found if str(path.relative_to(folder)) in covered]
  assert len(found) == len(covered) > 5
  return sorted(found, key=lambda path: -path.stat().st_size)


def flip_a_bit(path, position=-1):
  content = bytearray(path.read_bytes())
  content[position] ^= 1
  path.write_bytes(content)


def truncate(path):
  path.write_bytes(path.read_bytes()[:-1])


def test_whole_checkpoints_are_read(saves):
  assert saves.steps() == [1, 2, 3]
  assert saves.newest() == 3
  np.testing.assert_array_equal(
    saves.restore(3, state(0)).params["kernel"], state(3).params["kernel"]
  )


def test_what_older_versions_kept_is_read_as_todays(tmp_path):
  """A count of steps, an entry by its older name, a teacher's parameters alone."""
  old = {
    "step": jnp.int32(3),
    "hidden": jnp.arange(4.0),
    "teacher": {"kernel": jnp.arange(6.0)},
  }
  today = {"masked": old["hidden"], "teacher": Variables(old["teacher"], {})}
  like = jax.tree.map(jnp.zeros_like, today)
  for folder, kept in (("old", old), ("new", today)):
    checkpoints = Checkpoints(tmp_path / folder, keep=1)
    checkpoints.save(1, dataclasses.replace(state(1), extra=kept), {})
    checkpoints.wait()
    read = checkpoints.restore(1, dataclasses.replace(state(0), extra=like))
    for found in (checkpoints.restore_extra(1, like), read.extra):
      assert jax.tree.structure(found) == jax.tree.structure(today)
      jax.tree.map(np.testing.assert_array_equal, found, today)
    with pytest.raises(UserError, match="does not fit this config"):
      checkpoints.restore_extra(1, {**like, "queue": jnp.zeros(3)})
    checkpoints.close()


def test_an_objective_that_keeps_nothing_today_needs_nothing(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=1)
  old = dataclasses.replace(state(1), extra={"step": jnp.int32(1)})
  checkpoints.save(1, old, {})
  checkpoints.wait()
  assert checkpoints.restore_extra(1, ()) == ()
  today = dataclasses.replace(state(0), extra=())
  assert checkpoints.restore(1, today).extra == ()
  checkpoints.close()


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, os.unlink])
@pytest.mark.parametrize("which", range(0, 12, 3))
def test_one_damaged_file_is_found_and_the_checkpoint_before_used(saves, harm, which):
  harmed = files(saves.folder / "3")[which]
  harm(harmed)
  name = harmed.relative_to(str(saves.folder / "3"))
  with pytest.warns(RunWarning, match=f"step 3 .*: {name} (is|does)") as caught:
    assert saves.newest() == 2
  assert len(caught) == 1
  assert (saves.folder / "damaged-3").exists()
  assert saves.restore(2, state(0)).step == 2
  # There is room for another one, and nothing more to warn of.
  saves.save(3, state(3), {})
  saves.wait()
  assert saves.steps() == [1, 2, 3] and saves.newest() == 3


def test_every_file_that_is_restored_is_covered(saves):
  folder = Path(saves.folder / "3")
  names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
  covered = set(json.loads((folder / "checksums.json").read_text()))
  own = {"checksums.json", "_CHECKPOINT_METADATA", "commit_success.txt"}
  assert {Path(name).name for name in names - covered} == own


def test_all_damaged(saves):
  for step in (1, 2, 3):
    flip_a_bit(files(saves.folder / str(step))[0])
  with pytest.warns(RunWarning) as caught:
    assert saves.newest() is None
  assert len(caught) == 3


@pytest.mark.parametrize("leftover", ["4", "4.orbax-checkpoint-tmp"])
def test_an_unfinished_checkpoint_is_named(saves, leftover):
  shutil.copytree(str(saves.folder / "3"), str(saves.folder / leftover))
  (saves.folder / leftover / "commit_success.txt").unlink()
  with pytest.warns(RunWarning, match="step 4 .*: it was not finished"):
    assert saves.newest() == 3
  assert not (saves.folder / leftover).exists()
  saves.save(4, state(4), {})
  saves.wait()
  assert saves.newest() == 4


def test_a_damaged_step_that_was_requested(saves):
  flip_a_bit(files(saves.folder / "3")[0])
  with pytest.raises(UserError, match="step 3 .* does not have its checksum"):
    saves.restore_weights(3)
  with pytest.warns(RunWarning, match="step 3"):
    step, params = saves.restore_weights()
  assert step == 2
  np.testing.assert_array_equal(params["kernel"], state(2).params["kernel"])
  assert (saves.folder / "3").exists(), "reading must not change anything"


def test_the_command_line_goes_on_from_the_checkpoint_before(trained, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(trained, workdir)
  flip_a_bit(files(workdir / "checkpoints" / "2")[0])
  code, _, err = process("train", "--config", DIGITS, "--workdir", workdir, *TINY)
  assert code == 0
  assert "the checkpoint of step 2 in " in check_warning(err)
  assert "it is kept as damaged-2" in err
  arrays = []
  for folder in (trained, workdir):
    reader = workdirs.checkpoints(folder, tiny_config())
    arrays.append(reader.restore_weights(2)[1])
    reader.close()
  jax.tree.map(np.testing.assert_array_equal, *arrays)


def test_another_run_holds_the_workdir(trained, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(trained, workdir)
  commands = (
    ("train", "--config", DIGITS, "--workdir", workdir, *TINY),
    ("eval", "--workdir", workdir),
  )
  with workdirs.locked(workdir):
    before = listing(workdir)
    for command in commands:
      message = check_refusal(*process(*command)[::2])
      assert f"by process {os.getpid()} on {socket.gethostname()}" in message
    assert listing(workdir) == before


def test_a_killed_run_lets_go_of_the_workdir(tmp_path):
  code = (
    "import os, pathlib, signal, sys; from maskjax import workdir\n"
    "with workdir.locked(pathlib.Path(sys.argv[1])):\n"
    "  os.kill(os.getpid(), signal.SIGKILL)"
  )
  subprocess.run(
    [sys.executable, "-c", code, tmp_path], env={**os.environ, "PYTHONPATH": str(ROOT)}
  )
  assert (tmp_path / "lock").read_text().startswith("process ")
  with workdirs.locked(tmp_path):
    assert str(os.getpid()) in (tmp_path / "lock").read_text()
