"""Paths on object storage, and what may go wrong there.

Small things go through `etils.epath` (and so through fsspec's gcsfs and s3fs), the
arrays of checkpoints through TensorStore.
"""

import functools
import importlib.util
import os
import sys
from typing import Any

# Without this epath would take TensorFlow for gs:// and s3:// wherever it is
# installed, and TensorFlow does not know s3://.
os.environ.setdefault("EPATH_USE_TF", "false")

from etils import epath

from maskjax.errors import UserError

PATIENCE = 20.0  # seconds for a bucket's first answer

# By scheme: the extra, and what it installs.
_EXTRAS = {
  "gs": ("gcs", ("gcsfs", "google.cloud.storage")),
  "s3": ("s3", ("s3fs",)),
}

# Exceptions of the libraries below that are no OSError, by module.
_FOREIGN = {
  "aiohttp": ("ClientError",),
  "botocore.exceptions": ("BotoCoreError", "ClientError"),
  "gcsfs.retry": ("HttpError",),
  "google.api_core.exceptions": ("GoogleAPIError",),
  "google.auth.exceptions": ("GoogleAuthError",),
}


def is_remote(where: str | os.PathLike[str]) -> bool:
  """Whether a path lies on object storage.

  Example:
    >>> is_remote("gs://bucket/run"), is_remote("runs/digits")
    (True, False)
  """
  return "://" in os.fspath(where)


def path(where: str | os.PathLike[str]) -> epath.Path:
  """A path that is used alike whether it is local, `gs://` or `s3://`.

  Raises:
    UserError: another scheme, no bucket, or a package is missing; names the extra.
  """
  text = os.fspath(where)
  scheme, remote, rest = text.partition("://")
  if not remote:
    return epath.Path(text)
  if scheme not in _EXTRAS or not rest.strip("/"):
    raise UserError(
      f"{text}: expected a local path, gs://bucket/folder or s3://bucket/folder"
    )
  extra, packages = _EXTRAS[scheme]
  missing = [package for package in packages if not _is_installed(package)]
  if missing:
    raise UserError(
      f"{text}: {scheme}:// needs the package {missing[0]}; "
      f"pip install 'maskjax[{extra}]'"
    )
  import fsspec.config

  # A checkpoint's arrays are written past fsspec, which must not remember listings
  # from before.
  for name in ("gcs", "gs", "s3"):
    fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
  # By itself s3fs may give up within three seconds; gcsfs tries for a minute.
  retries = {"mode": "standard", "max_attempts": 10}
  fsspec.config.conf["s3"].setdefault("config_kwargs", {}).setdefault(
    "retries", retries
  )
  return epath.Path(text)


def reach(where: str | os.PathLike[str]) -> epath.Path:
  """A path in a bucket that is known to answer; local paths need not exist.

  Buckets are asked before work begins, and are given `PATIENCE` seconds to answer.
  Later on, the libraries would take some failures for a file that is not there.

  Raises:
    UserError: see `path`; or there is no such bucket, no permission, or no answer.
  """
  found = path(where)
  if not is_remote(found):
    return found
  from fsspec.asyn import sync

  system, name = filesystem(found)
  try:
    # One name, in the folder itself: a permission may hold for no more than that.
    sync(system.loop, system._find, f"{name}/config.json", timeout=PATIENCE)
  except FileNotFoundError as error:
    raise UserError(f"{where}: there is no bucket {name.split('/')[0]!r}") from error
  except TimeoutError as error:
    raise UserError(f"{where}: no answer within {PATIENCE:g} seconds") from error
  except errors() as error:
    raise UserError(f"{where} cannot be reached: {brief(error)}") from error
  return found


def files(root: str) -> list[str]:
  """All files under a remote folder, as paths relative to it, sorted.

  Raises:
    UserError: see `reach`.
  """
  reach(root)
  try:
    system, name = filesystem(root)
    found = system.find(name)
  except errors() as error:
    raise UserError(f"{root} cannot be read: {brief(error)}") from error
  start = len(name.rstrip("/")) + 1
  return sorted(file[start:] for file in found if len(file) > start)


def matching(pattern: str) -> list[str]:
  """The remote files that a glob pattern matches, sorted.

  Raises:
    UserError: see `reach`.
  """
  reach(pattern)
  scheme = pattern.partition("://")[0]
  try:
    system, name = filesystem(pattern)
    return sorted(f"{scheme}://{file}" for file in system.glob(name))
  except errors() as error:
    raise UserError(f"{pattern} cannot be read: {brief(error)}") from error


def exists(where: str | os.PathLike[str]) -> bool:
  """Whether there is such a file or folder.

  The libraries' own answer is no as well where a remote store cannot be asked; here
  it is one of `errors`.
  """
  if not is_remote(where):
    return os.path.exists(where)
  system, name = filesystem(where)
  try:
    system.info(name)
  except FileNotFoundError:
    return False
  return True


def checksums(root: str | os.PathLike[str]) -> dict[str, str]:
  """The checksums that a store has of all files under a remote folder, by path."""
  system, name = filesystem(root)
  return {
    file[len(name) + 1 :]: f"{info['size']} {info.get('crc32c') or info['ETag']}"
    for file, info in system.find(name, detail=True).items()
  }


def move(where: epath.Path, target: epath.Path) -> None:
  """Renames a folder; on object storage, object by object within the store."""
  if not is_remote(where):
    where.rename(target)
    return
  # The library's own rename takes the folders in it for objects, and misses them.
  system, name = filesystem(where)
  _, goal = filesystem(target)
  files = system.find(name)
  system.copy(files, [goal + file[len(name) :] for file in files])
  system.rm(files)


def read_bytes(where: str) -> bytes:
  """The content of a remote file, by a single request."""
  system, name = filesystem(where)
  return system.cat_file(name)


def filesystem(where: str | os.PathLike[str]) -> tuple[Any, str]:
  """The fsspec file system of a path, and the path's name in it."""
  from fsspec.core import url_to_fs

  return url_to_fs(os.fspath(path(where)))


def kvstore(where: str | os.PathLike[str]) -> dict[str, Any]:
  """TensorStore's specification of a folder on object storage.

  An endpoint other than Amazon's is taken from where boto3 takes it too:
  `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`.
  """
  scheme, _, rest = os.fspath(where).partition("://")
  bucket, _, folder = rest.partition("/")
  spec: dict[str, Any] = {"bucket": bucket, "path": folder.rstrip("/") + "/"}
  if scheme == "gs":
    return {"driver": "gcs", **spec}
  endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
  region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
  if "AWS_ACCESS_KEY_ID" in os.environ:
    spec["aws_credentials"] = {"type": "environment"}
  if endpoint:
    spec["endpoint"] = endpoint
    region = region or "us-east-1"  # which an endpoint cannot be asked for
  if region:
    spec["aws_region"] = region
  return {"driver": "s3", "use_conditional_write": True, **spec}


def errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
  """What reading and writing may raise, here or on object storage; and others."""
  found: list[type[Exception]] = [OSError, *others]
  for module, names in _FOREIGN.items():
    if module in sys.modules:
      found += [getattr(sys.modules[module], name) for name in names]
  return tuple(found)


def brief(error: BaseException) -> str:
  """What an error says, on one short line."""
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return " ".join(str(text).split())[:300]


@functools.cache
def _is_installed(package: str) -> bool:
  try:
    return importlib.util.find_spec(package) is not None
  except ModuleNotFoundError:  # of a package around it
    return False
