"""The folder in which a run lives."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import distributed, storage
from maskjax.errors import UserError
from maskjax.migrations import migrate
from maskjax.training.checkpoints import Checkpoints

LOCK = "lock"
METRICS = "metrics.jsonl"
TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workdir:
  """A workdir to which no other run writes.

  Attributes:
    folder: where it is.
    local: where to write files that grow: the same folder, unless that is on object
      storage, see `maskjax.storage.Mirror`.
    settle: to be called before a checkpoint is begun. Makes sure that the workdir has
      what was written, and still is this run's; raises a `RunError` otherwise.
  """

  folder: epath.Path
  local: Path
  settle: Callable[[], None]


@contextlib.contextmanager
def opened(config: ConfigDict, workdir: str | Path) -> Iterator[Workdir]:
  """Makes a workdir for a config, or opens one that is of the same config.

  Until it is left no other run can write there. Of many processes the first one
  does the work.

  Raises:
    UserError: it belongs to another config (says which keys differ), another run is
      writing there (says whose), or it cannot be written.
  """
  folder = storage.reach(workdir)
  written = configs.plain(config)

  def make() -> None:
    with _complaints(folder):
      _check_same_config(folder, written)
      if not storage.is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)

  def write() -> None:
    with _complaints(folder):
      _write_config(folder / "config.json", json.dumps(written, indent=2) + "\n")

  distributed.first_process(make)
  with held(folder) as workdir_held:
    distributed.first_process(write)
    yield workdir_held


@contextlib.contextmanager
def held(folder: epath.Path) -> Iterator[Workdir]:
  """Keeps other runs from writing in a workdir until it is left.

  Raises:
    UserError: another run is writing there (says whose), or it cannot be written.
  """
  with contextlib.ExitStack() as stack:
    checks: list[Callable[[], None]] = []  # none but in the first process

    def hold() -> None:
      with _complaints(folder):
        if storage.is_remote(folder):
          lease = storage.Lease(folder)
          stack.callback(lease.release)
          checks.append(lease.check)
        else:
          stack.enter_context(locked(Path(folder)))

    distributed.first_process(hold)
    mirror = stack.enter_context(storage.mirror(folder, grown=[METRICS]))

    def settle() -> None:
      for check in checks:
        check()
      mirror.flush()

    yield Workdir(folder=folder, local=mirror.folder, settle=settle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
  """Keeps other runs from writing in a local workdir.

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


@contextlib.contextmanager
def _complaints(folder: epath.Path) -> Iterator[None]:
  try:
    yield
  except storage.errors() as error:
    message = f"workdir {folder} cannot be written: {storage.brief(error)}"
    raise UserError(message) from error


def _write_config(path: epath.Path, text: str) -> None:
  """Writes a file all at once, or not at all."""
  if storage.is_remote(path):
    path.write_text(text)
    return
  fresh = path.with_name(f"{path.name}.tmp")
  try:
    fresh.write_text(text)
    fresh.replace(path)
  finally:
    fresh.unlink(missing_ok=True)


def _check_same_config(folder: epath.Path, written: dict) -> None:
  if storage.exists(folder / "config.json"):
    there = configs.plain(read_config(folder))
    found = configs.differences(there, migrate(written))
    if found:
      raise UserError(
        f"workdir {folder} belongs to another config: {'; '.join(found)}; "
        "expected the same config, or another workdir"
      )
  elif storage.exists(folder / "checkpoints"):
    raise UserError(f"workdir {folder} has checkpoints but no config.json")


def read_config(workdir: str | Path) -> ConfigDict:
  """Reads the config of a workdir, as today's version would have written it.

  Raises:
    UserError: it has none, or one that cannot be read.
  """
  path = storage.reach(workdir) / "config.json"
  try:
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
      raise ValueError(f"it holds a {type(found).__name__}, expected an object")
    return configs.complete(ConfigDict(migrate(found)))
  except FileNotFoundError:
    raise UserError(f"{workdir}: expected a workdir with a config.json") from None
  except storage.errors(ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}") from error


def checkpoints(workdir: str | Path, config: ConfigDict) -> Checkpoints:
  """The checkpoints of a workdir."""
  folder = storage.reach(workdir) / "checkpoints"
  return Checkpoints(folder, keep=config.checkpoint.keep)
