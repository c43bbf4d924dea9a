"""Paths on object storage, and the errors of reading and writing there.

Small files are read and written by `etils.epath` (and so by fsspec's gcsfs and s3fs),
the arrays of checkpoints by TensorStore.
"""

import functools
import importlib.util
import os
import sys
from typing import Any

# Without this, epath uses TensorFlow for gs:// and s3:// if it is installed, and
# TensorFlow does not support s3://.
os.environ.setdefault("EPATH_USE_TF", "false")

from etils import epath

from maskjax.errors import UserError

PATIENCE = 20.0  # seconds to wait for the first answer of a bucket

# By scheme: the extra of this package, and the packages that it installs.
_EXTRAS = {
  "gs": ("gcs", ("gcsfs", "google.cloud.storage")),
  "s3": ("s3", ("s3fs",)),
}

# By module: exceptions of the libraries used here that are not OSErrors.
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
  """Makes a path with the interface of `pathlib`, local, `gs://` or `s3://`.

  Args:
    where: the path as text.

  Raises:
    UserError: another scheme, no bucket, or a package is missing; names the extra
      that installs it.
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

  # TensorStore writes the arrays of checkpoints, so fsspec's cached listings would be
  # out of date.
  for name in ("gcs", "gs", "s3"):
    fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
  # By default s3fs may give up within three seconds; gcsfs retries for a minute.
  retries = {"mode": "standard", "max_attempts": 10}
  fsspec.config.conf["s3"].setdefault("config_kwargs", {}).setdefault(
    "retries", retries
  )
  return epath.Path(text)


def reach(where: str | os.PathLike[str]) -> epath.Path:
  """Makes a path, and checks that its bucket can be reached.

  To be called before work begins: later on, the libraries report some failures as a
  file that does not exist.

  Args:
    where: the path as text; a local one need not exist.

  Raises:
    UserError: see `path`; or there is no such bucket, no permission, or no answer
      within `PATIENCE` seconds.
  """
  found = path(where)
  if not is_remote(found):
    return found
  from fsspec.asyn import sync

  system, name = filesystem(found)
  try:
    # A single name in the folder itself: the permission may cover nothing else.
    sync(system.loop, system._find, f"{name}/config.json", timeout=PATIENCE)
  except FileNotFoundError as error:
    raise UserError(f"{where}: there is no bucket {name.split('/')[0]!r}") from error
  except TimeoutError as error:
    raise UserError(f"{where}: no answer within {PATIENCE:g} seconds") from error
  except errors() as error:
    raise UserError(f"{where} cannot be reached: {brief(error)}") from error
  return found


def files(root: str) -> list[str]:
  """Lists all files under a remote folder.

  Args:
    root: the folder, `gs://bucket/...` or `s3://bucket/...`.

  Returns:
    Their paths relative to the folder, sorted.

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
  """Lists the remote files that a glob pattern matches.

  Args:
    pattern: `gs://bucket/...` or `s3://bucket/...`, with wildcards.

  Returns:
    Their whole paths, sorted.

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
  """Whether a file or folder exists.

  Where a remote store cannot be reached the libraries' own functions return False; this
  one raises one of `errors`.

  Args:
    where: the path, local or remote.
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
  """Reads the checksums that a store keeps of its objects.

  Args:
    root: a remote folder.

  Returns:
    Size and checksum of each file under it, as text, by the path relative to it.
  """
  system, name = filesystem(root)
  return {
    file[len(name) + 1 :]: f"{info['size']} {info.get('crc32c') or info['ETag']}"
    for file, info in system.find(name, detail=True).items()
  }


def move(where: epath.Path, target: epath.Path) -> None:
  """Renames a folder; on object storage, copies its objects within the store.

  Args:
    where: the folder.
    target: its new path, in the same bucket; must not exist.
  """
  if not is_remote(where):
    where.rename(target)
    return
  # The library's own rename looks for objects with the names of subfolders, and fails.
  system, name = filesystem(where)
  _, goal = filesystem(target)
  files = system.find(name)
  system.copy(files, [goal + file[len(name) :] for file in files])
  system.rm(files)


def read_bytes(where: str) -> bytes:
  """Reads a remote file by a single request.

  Args:
    where: its path, `gs://bucket/...` or `s3://bucket/...`.
  """
  system, name = filesystem(where)
  return system.cat_file(name)


def filesystem(where: str | os.PathLike[str]) -> tuple[Any, str]:
  """Finds the fsspec file system of a path, and the path's name in it.

  Args:
    where: the path, local or remote.

  Raises:
    UserError: see `path`.
  """
  from fsspec.core import url_to_fs

  return url_to_fs(os.fspath(path(where)))


def kvstore(where: str | os.PathLike[str]) -> dict[str, Any]:
  """Makes TensorStore's specification of a folder on object storage.

  Endpoint and region of S3 are read from boto3's environment variables:
  `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, and `AWS_REGION` or
  `AWS_DEFAULT_REGION`.

  Args:
    where: the folder, `gs://bucket/...` or `s3://bucket/...`.

  Example:
    >>> kvstore("gs://bucket/run")
    {'driver': 'gcs', 'bucket': 'bucket', 'path': 'run/'}
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
    region = region or "us-east-1"  # TensorStore cannot look up that of an endpoint
  if region:
    spec["aws_region"] = region
  return {"driver": "s3", "use_conditional_write": True, **spec}


def errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
  """The exceptions that reading and writing may raise, on disk or on object storage.

  Args:
    *others: further types to include.

  Returns:
    The types, for an `except` clause.
  """
  found: list[type[Exception]] = [OSError, *others]
  for module, names in _FOREIGN.items():
    if module in sys.modules:
      found += [getattr(sys.modules[module], name) for name in names]
  return tuple(found)


def brief(error: BaseException) -> str:
  """The message of an error on one line of at most 300 characters.

  Args:
    error: the error; the name of its type is used if it has no message.

  Example:
    >>> brief(OSError(28, "No space left on device"))
    'No space left on device'
  """
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return " ".join(str(text).split())[:300]


@functools.cache
def _is_installed(package: str) -> bool:
  try:
    return importlib.util.find_spec(package) is not None
  except ModuleNotFoundError:  # its parent package is missing
    return False
