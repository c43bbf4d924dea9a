"""Checkpoints on object storage that are damaged, unfinished, or cannot be written."""

import jax.numpy as jnp
import numpy as np
import pytest

from maskjax import storage
from maskjax.errors import RunError, RunWarning
from maskjax.training import TrainState
from maskjax.training.checkpoints import Checkpoints


def state(step):
  return TrainState(
    step=jnp.int32(step),
    params={"kernel": step * jnp.arange(5000.0)},
    extra={},
    opt_state={"mu": jnp.full(7, step)},
  )


def write(root, *steps):
  writer = Checkpoints(f"{root}/checkpoints", keep=3)
  for step in steps:
    writer.save(step, state(step), {})
  writer.close()
  return storage.path(f"{root}/checkpoints")


def folders(folder):
  return {path.name for path in folder.iterdir()}


def test_damage_is_found_and_set_aside(store):
  folder = write(store.root, 1, 2, 3)
  names = storage.files(f"{folder}/3/params")
  array = max(names, key=lambda n: (folder / "3" / "params" / n).stat().length)
  content = bytearray((folder / "3" / "params" / array).read_bytes())
  content[len(content) // 2] ^= 1
  (folder / "3" / "params" / array).write_bytes(content)
  reader = Checkpoints(folder, keep=3)
  with pytest.warns(RunWarning, match=f"step 3 .*: params/{array} does not have its"):
    assert reader.newest() == 2
  assert folders(folder) == {"1", "2", "damaged-3"}
  kept = (folder / "damaged-3" / "params" / array).read_bytes()
  assert kept == bytes(content)
  # There is room for another one.
  reader.save(3, state(3), {})
  reader.wait()
  assert reader.newest() == 3
  found = reader.restore(3, state(0)).params["kernel"]
  np.testing.assert_array_equal(found, state(3).params["kernel"])
  reader.close()


def test_unfinished_checkpoint_is_removed(store):
  folder = write(store.root, 1, 2)
  (folder / "2" / "commit_success.txt").unlink()
  reader = Checkpoints(folder)
  with pytest.warns(RunWarning, match="step 2 .*: it was not finished"):
    assert reader.newest() == 1
  assert folders(folder) == {"1"}
  reader.close()


def test_old_checkpoints_are_deleted(store):
  folder = write(store.root, 1, 2, 3, 4, 5)
  assert folders(folder) == {"3", "4", "5"}
  assert not [f for f in storage.files(str(folder)) if f.startswith(("1/", "2/"))]


def test_permission_that_ends(store):
  saves = Checkpoints(f"{store.root}/checkpoints")
  saves.save(1, state(1), {})
  saves.wait()
  store.proxy.deny()
  with pytest.raises(RunError, match="step 2 could not be written") as failure:
    saves.save(2, state(2), {})
    saves.wait()
  assert "\n" not in str(failure.value)
  store.proxy.down()
  store.proxy.up()
  assert saves.newest() == 1
