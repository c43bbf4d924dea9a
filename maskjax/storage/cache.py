"""Local copies of remote files, for libraries that only read local files."""

import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskjax.errors import UserError
from maskjax.storage.paths import brief, errors, filesystem

# The key that identifies the version of an object, on Google's store or on S3.
_VERSIONS = ("generation", "ETag")


def local_copy(remote: str, names: Sequence[str]) -> Path:
  """Copies files of a remote folder to this host, once for all its processes.

  The copies are kept in `MASKJAX_CACHE`, or else in `~/.cache/maskjax`. The name of
  their folder depends on the addresses, sizes and versions of the objects, so that
  they are copied again when one of them is replaced.

  Args:
    remote: the folder, `gs://bucket/...` or `s3://bucket/...`.
    names: of the files in it.

  Returns:
    The local folder that holds the copies.

  Raises:
    UserError: a file cannot be read, or the copies cannot be written.
  """
  cache = Path(os.environ.get("MASKJAX_CACHE") or "~/.cache/maskjax").expanduser()
  try:
    files, root = filesystem(remote)
    known = [files.info(f"{root}/{name}") for name in names]
    identity = repr([remote, *map(_identity, names, known)])
    folder = cache / hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # other processes wait instead of copying too
      for name in names:
        if not (folder / name).exists():
          fresh = folder / f".{name}.tmp"
          files.get_file(f"{root}/{name}", str(fresh))
          fresh.replace(folder / name)
  except errors() as error:
    raise UserError(f"{remote} cannot be copied to {cache}: {brief(error)}") from error
  return folder


def _identity(name: str, info: Mapping[str, Any]) -> tuple[Any, ...]:
  return name, info["size"], str(next(info[k] for k in _VERSIONS if k in info))
