"""Files that grow, on object storage, where an object cannot be appended to."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath

from maskjax.errors import RunError
from maskjax.storage.paths import brief, errors, is_remote


class Mirror:
  """A local folder whose files are copied to a remote one as they grow.

  An object cannot be appended to, so each copy is of a whole file. A thread makes the
  copies, at most one every few seconds; `flush` makes them at once.

  Args:
    remote: the folder that the files are copied to.
    every: seconds between copies.
  """

  def __init__(self, remote: epath.Path, *, every: float = 10.0):
    self.folder = Path(tempfile.mkdtemp(prefix="maskjax-"))
    self._remote = remote
    self._every = every
    self._copied: dict[Path, tuple[int, int]] = {}
    self._copying = threading.Lock()
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
    self._thread.start()

  def fetch(self, name: str) -> None:
    """Copies a remote file here, if it exists, so that more can be appended to it.

    Args:
      name: of the file in the remote folder.
    """
    file = self.folder / name
    with self._copying, contextlib.suppress(FileNotFoundError):
      file.write_bytes((self._remote / name).read_bytes())
      self._copied[file] = _state(file)

  def flush(self) -> None:
    """Copies the files that have changed since they were last copied.

    Raises:
      RunError: one could not be copied.
    """
    try:
      self._copy()
    except errors() as error:
      raise RunError(
        f"workdir {self._remote} cannot be written: {brief(error)}"
      ) from error

  def close(self) -> None:
    """Copies for the last time, and deletes the local folder.

    Raises:
      RunError: a file could not be copied.
    """
    self._stop.set()
    self._thread.join()
    try:
      self.flush()
    finally:
      shutil.rmtree(self.folder, ignore_errors=True)

  def _run(self) -> None:
    while not self._stop.wait(self._every):
      try:
        self._copy()
      except errors():
        pass  # the next copy may succeed; `flush` raises if it does not

  def _copy(self) -> None:
    with self._copying:
      for file in sorted(self.folder.rglob("*")):
        if not file.is_file() or file.suffix == ".tmp":
          continue
        state = _state(file)
        if self._copied.get(file) != state:
          target = self._remote / file.relative_to(self.folder).as_posix()
          epath.Path(file).copy(target, overwrite=True)
          self._copied[file] = state


def _state(file: Path) -> tuple[int, int]:
  """Size and time of a file: they change when the file does."""
  now = file.stat()
  return now.st_size, now.st_mtime_ns


class _Local:
  """A folder that is local already, with the interface of a mirror."""

  def __init__(self, folder: Path):
    self.folder = folder

  def flush(self) -> None:
    """Does nothing: files are where they belong."""


@contextlib.contextmanager
def mirror(
  remote: epath.Path, *, grown: Sequence[str] = ()
) -> Iterator[Mirror | _Local]:
  """Opens a local folder whose growing files are mirrored to another folder.

  Args:
    remote: the folder that the files belong in; if it is local, it is used directly.
    grown: names of files to which more will be appended, if they exist.

  Yields:
    An object with the local `folder`, and with `flush`.

  Raises:
    RunError: on leaving, if a file could not be copied.
  """
  if not is_remote(remote):
    yield _Local(Path(remote))
    return
  mirror = Mirror(remote)
  try:
    for name in grown:
      mirror.fetch(name)
    yield mirror
  except BaseException:
    # The first error is the one to report.
    with contextlib.suppress(RunError):
      mirror.close()
    raise
  mirror.close()
