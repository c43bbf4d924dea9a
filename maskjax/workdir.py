"""A run's workdir: its config, lock, metrics and checkpoints."""

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
  """A workdir to which no other run can write.

  Attributes:
    folder: its path.
    local: the folder for files that grow: the same one, unless that is on object
      storage, see `maskjax.storage.Mirror`.
    settle: is called before a checkpoint is begun. Copies to the workdir what was
      written locally, and raises a `RunError` if that fails or if another run has
      taken the workdir over.
  """

  folder: epath.Path
  local: Path
  settle: Callable[[], None]


@contextlib.contextmanager
def opened(config: ConfigDict, workdir: str | Path) -> Iterator[Workdir]:
  """Creates a workdir for a config, or opens one of the same config.

  Inside the context no other run can write there. The first process creates and locks
  it for all processes of the run.

  Args:
    config: is stored in a new workdir, and compared with that of an old one.
    workdir: local path, `gs://bucket/...` or `s3://bucket/...`.

  Yields:
    The workdir.

  Raises:
    UserError: it belongs to another config (names the keys that differ), another run
      is writing there (names its host and process), or it cannot be written.
  """
  folder = storage.reach(workdir)
  written = configs.plain(config)

  def make() -> None:
    with _write_errors(folder):
      _check_same_config(folder, written)
      if not storage.is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)

  def write() -> None:
    with _write_errors(folder):
      _write_config(folder / "config.json", json.dumps(written, indent=2) + "\n")

  distributed.first_process(make)
  with held(folder) as workdir_held:
    distributed.first_process(write)
    yield workdir_held


@contextlib.contextmanager
def held(folder: epath.Path) -> Iterator[Workdir]:
  """Locks a workdir that exists.

  Args:
    folder: the workdir, local or on object storage.

  Yields:
    The workdir.

  Raises:
    UserError: another run is writing there (names its host and process), or it cannot
      be written.
  """
  with contextlib.ExitStack() as stack:
    checks: list[Callable[[], None]] = []  # empty except in the first process

    def hold() -> None:
      with _write_errors(folder):
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
  """Locks a local workdir.

  The operating system releases the lock when the process ends, even by SIGKILL.

  Args:
    folder: the workdir.

  Raises:
    UserError: another run holds the lock; names its host and process.
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
      # Its last holder may have deleted the file; a lock on it would stop no one.
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
def _write_errors(folder: epath.Path) -> Iterator[None]:
  try:
    yield
  except storage.errors() as error:
    message = f"workdir {folder} cannot be written: {storage.brief(error)}"
    raise UserError(message) from error


def _write_config(path: epath.Path, text: str) -> None:
  """Writes a file such that readers never see a part of it."""
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

  Args:
    workdir: local path, `gs://bucket/...` or `s3://bucket/...`.

  Raises:
    UserError: there is no `config.json`, or it cannot be read.
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
  """Opens the checkpoints of a workdir.

  Args:
    workdir: local path, `gs://bucket/...` or `s3://bucket/...`.
    config: its `checkpoint.keep` is how many of the newest are kept.
  """
  folder = storage.reach(workdir) / "checkpoints"
  return Checkpoints(folder, keep=config.checkpoint.keep)
