"""Growing files on object storage, which cannot append."""

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
  """A local folder, whose files are copied whole to a remote one as they grow.

  An object cannot be appended to, so a copy costs the size of the file. Copies are
  therefore made by a thread, no more often than every so many seconds, however
  often lines are added; what must be safe at once is copied by `flush`.

  Args:
    remote: where the files go.
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
    """Copies a remote file here, if there is one, to go on with it."""
    file = self.folder / name
    with self._copying, contextlib.suppress(FileNotFoundError):
      file.write_bytes((self._remote / name).read_bytes())
      self._copied[file] = _state(file)

  def flush(self) -> None:
    """Copies what has changed since the last copy.

    Raises:
      RunError: it could not be copied.
    """
    try:
      self._copy()
    except errors() as error:
      raise RunError(
        f"workdir {self._remote} cannot be written: {brief(error)}"
      ) from error

  def close(self) -> None:
    """Copies for the last time, and removes the local folder."""
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
        pass  # the next copy may succeed; `flush` complains if it does not

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
  """What changes when a file does."""
  now = file.stat()
  return now.st_size, now.st_mtime_ns


class _Here:
  """In place of a mirror: the folder is local already."""

  def __init__(self, folder: Path):
    self.folder = folder

  def flush(self) -> None:
    """Nothing is held back."""


@contextlib.contextmanager
def mirror(
  remote: epath.Path, *, grown: Sequence[str] = ()
) -> Iterator[Mirror | _Here]:
  """Where to write files that grow, for as long as they do.

  Args:
    remote: the folder in which they are to be; a local one is given back itself.
    grown: files that are to go on growing, where they are.

  Yields:
    What has the local `folder`, and `flush`.
  """
  if not is_remote(remote):
    yield _Here(Path(remote))
    return
  mirror = Mirror(remote)
  try:
    for name in grown:
      mirror.fetch(name)
    yield mirror
  except BaseException:
    # What went wrong is to be said, not that this did too.
    with contextlib.suppress(RunError):
      mirror.close()
    raise
  mirror.close()
