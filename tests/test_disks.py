"""Disks that are full, become full, or may not be written."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.running import (
  DIGITS,
  TINY,
  Refused,
  check_refusal,
  check_warning,
  listing,
  process,
  tiny_config,
)

from maskjax import workdir as workdirs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
  """Mounts a small disk in memory, or remounts it with other options."""
  point = tmp_path / "disk"
  point.mkdir()
  mounted = False

  def mount(options: str) -> Path:
    nonlocal mounted
    options = f"remount,{options}" if mounted else options
    done = subprocess.run(
      ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)],
      capture_output=True,
      text=True,
    )
    if done.returncode and not mounted:
      pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    mounted = True
    return point

  if shutil.which("mount") is None:
    pytest.skip("there is no mount here")
  yield mount
  if mounted:
    subprocess.run(["umount", "-l", str(point)], check=True)


def fill(folder: Path) -> Path:
  filler = folder / "filler"
  with filler.open("wb", buffering=0) as file:
    try:
      while True:
        file.write(bytes(4096))
    except OSError:
      pass
  return filler


def test_a_full_disk_at_the_start(
  refused: Refused, trained: Path, disk: Callable[[str], Path]
) -> None:
  root = disk("size=4m")
  workdir = shutil.copytree(trained, root / "trained")
  fill(root)
  before = listing(workdir)
  for name in ("new", "trained"):
    line = refused("train", "--config", DIGITS, "--workdir", root / name, *TINY)
    assert str(root / name) in line and "No space left" in line
  assert listing(workdir) == before
  assert not (root / "new" / "config.json").exists()


def test_a_read_only_disk(
  refused: Refused, trained: Path, disk: Callable[[str], Path]
) -> None:
  root = disk("size=4m")
  workdir = shutil.copytree(trained, root / "trained")
  disk("ro")
  before = listing(root)
  for name in ("new", "trained"):
    line = refused("train", "--config", DIGITS, "--workdir", root / name, *TINY)
    assert str(root / name) in line and "Read-only" in line
  line = refused("eval", "--workdir", workdir)
  assert str(workdir) in line and "Read-only" in line
  assert listing(root) == before


def test_a_disk_that_fills_up_during_a_checkpoint(
  trained: Path, disk: Callable[[str], Path]
) -> None:
  root = disk("size=64m")
  shutil.copytree(trained, root / "run")
  shutil.rmtree(root / "run/checkpoints/2")
  # Room for half a checkpoint, but for all else that a run writes.
  size = sum(p.stat().st_size for p in (root / "run/checkpoints/1").rglob("*"))
  used = (os.statvfs(root).f_blocks - os.statvfs(root).f_bfree) * 4096
  disk(f"size={used + size // 2}")
  train = ["train", "--config", DIGITS, "--workdir", root / "run", *TINY]
  code, _, err = process(*train)
  line = check_refusal(code, err, expected=1)
  assert "step 2" in line and str(root / "run/checkpoints") in line
  assert "kept" in line
  saved = workdirs.checkpoints(root / "run", tiny_config())
  assert saved.steps() == [1]
  saved.close()
  disk("size=64m")
  code, _, err = process(*train)
  assert code == 0
  assert "step 2" in err and "it was not finished" in check_warning(err)
  saved = workdirs.checkpoints(root / "run", tiny_config())
  assert saved.steps() == [1, 2]
  saved.close()
