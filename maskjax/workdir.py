"""The folder in which a run lives."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import distributed
from maskjax.errors import UserError
from maskjax.training.checkpoints import Checkpoints

LOCK = "lock"


@contextlib.contextmanager
def opened(config: ConfigDict, workdir: str | Path) -> Iterator[Path]:
  """Makes a workdir for a config, or opens one that is of the same config.

  Until it is left no other run can write there. Of many processes the first one
  does the work.

  Raises:
    UserError: it belongs to another config (says which keys differ), another run is
      writing there (says whose), or it cannot be written.
  """
  folder = Path(workdir)
  written = configs.plain(config)
  with contextlib.ExitStack() as stack:

    def open_folder() -> None:
      try:
        _check_same_config(folder, written)
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(folder))
        fresh = folder / "config.json.tmp"
        try:
          fresh.write_text(json.dumps(written, indent=2) + "\n")
          fresh.replace(folder / "config.json")
        finally:
          fresh.unlink(missing_ok=True)
      except OSError as error:
        raise UserError(
          f"workdir {folder} cannot be written: {error.strerror}"
        ) from error

    distributed.first_process(open_folder)
    yield folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
  """Keeps other runs from writing in a workdir.

  The system lets go of the lock when the process ends, however it ends.

  Raises:
    UserError: another run holds it; names its host and process.
  """
  path = folder / LOCK
  while True:
    with path.open("a+") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        file.seek(0)
        raise UserError(
          f"workdir {folder} is being written by {file.read() or 'another run'}: "
          "expected no other run there"
        ) from None
      # Whoever held it until now may have deleted it, and then it stops nobody.
      if not path.exists() or not os.path.samestat(
        path.stat(), os.fstat(file.fileno())
      ):
        continue
      try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
      finally:
        path.unlink()
      return


def _check_same_config(folder: Path, written: dict) -> None:
  if (folder / "config.json").exists():
    found = configs.differences(configs.plain(read_config(folder)), written)
    if found:
      raise UserError(
        f"workdir {folder} belongs to another config: {'; '.join(found)}; "
        "expected the same config, or another workdir"
      )
  elif (folder / "checkpoints").exists():
    raise UserError(f"workdir {folder} has checkpoints but no config.json")


def read_config(workdir: str | Path) -> ConfigDict:
  """Reads the config of a workdir.

  Raises:
    UserError: it has none, or one that cannot be read.
  """
  path = Path(workdir) / "config.json"
  try:
    return configs.complete(ConfigDict(json.loads(path.read_text())))
  except FileNotFoundError:
    raise UserError(f"{workdir}: expected a workdir with a config.json") from None
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}") from error


def checkpoints(workdir: str | Path, config: ConfigDict) -> Checkpoints:
  """The checkpoints of a workdir."""
  return Checkpoints(Path(workdir) / "checkpoints", keep=config.checkpoint.keep)
