"""Local copies of remote files, for libraries that read local files alone."""

import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskjax.errors import UserError
from maskjax.storage.paths import brief, errors, filesystem

# What tells one version of an object from another, in one or other store.
_VERSIONS = ("generation", "ETag")


def local_copy(remote: str, names: Sequence[str]) -> Path:
  """Copies files of a remote folder to this host, once for all its processes.

  The copies stay, in `MASKJAX_CACHE` or else `~/.cache/maskjax`, in a folder whose
  name follows from the objects' addresses, sizes and versions: where one is replaced
  they are copied again.

  Args:
    remote: the folder.
    names: the files in it.

  Returns:
    The local folder that holds them.

  Raises:
    UserError: one cannot be read, or the copies cannot be written.
  """
  place = Path(os.environ.get("MASKJAX_CACHE") or "~/.cache/maskjax").expanduser()
  try:
    files, root = filesystem(remote)
    known = [files.info(f"{root}/{name}") for name in names]
    identity = repr([remote, *map(_identity, names, known)])
    folder = place / hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # other processes wait instead of copying too
      for name in names:
        if not (folder / name).exists():
          fresh = folder / f".{name}.tmp"
          files.get_file(f"{root}/{name}", str(fresh))
          fresh.replace(folder / name)
  except errors() as error:
    raise UserError(f"{remote} cannot be copied to {place}: {brief(error)}") from error
  return folder


def _identity(name: str, info: Mapping[str, Any]) -> tuple[Any, ...]:
  return name, info["size"], str(next(info[k] for k in _VERSIONS if k in info))
