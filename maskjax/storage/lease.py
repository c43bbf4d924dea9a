"""A lock on a folder on object storage."""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from typing import Any, NoReturn

from etils import epath

from maskjax.errors import RunError, UserError
from maskjax.storage.paths import brief, kvstore

NAME = "lease.json"
SECONDS = 10.0
_RETRIES = {"max_retries": 6, "initial_delay": "200ms", "max_delay": "2s"}


class Lease:
  """The right of one run to write to a folder.

  A lease is an object that its holder replaces every few seconds, on condition that
  nobody else has replaced it. A second run watches the object: while it changes, it is
  held; once it has not changed for `seconds`, its holder is gone. So the clocks of two
  hosts are never compared.

  Args:
    folder: the folder on object storage.
    seconds: after which a lease that is not renewed may be taken over.

  Raises:
    UserError: another run holds the lease (names its host and process), or it cannot
      be written.
  """

  def __init__(self, folder: epath.Path, *, seconds: float = SECONDS):
    self._folder = folder
    self._seconds = seconds
    self._token = uuid.uuid4().hex
    self._renewals = 0
    self._lost = ""
    self._stop = threading.Event()
    try:
      self._store = _open(folder)
      self._generation = self._acquire()
    except ValueError as error:  # TensorStore raises no other type
      if isinstance(error, UserError):
        raise
      raise UserError(f"workdir {folder} cannot be written: {brief(error)}") from error
    self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises a `RunError` if another run has taken the lease over."""
    if self._lost:
      raise RunError(
        f"workdir {self._folder} was taken over by {self._lost}, after this run "
        f"could not reach it for {self._seconds:g} seconds"
      )

  def release(self) -> None:
    """Deletes the lease, so that the next run need not wait."""
    self._stop.set()
    self._thread.join()
    # A lease that cannot be deleted expires by itself.
    with contextlib.suppress(ValueError):
      self._store.write(NAME, None, if_equal=self._generation).result()

  def _acquire(self) -> bytes:
    seen = self._store.read(NAME).result()
    until = time.monotonic() + self._seconds
    if seen.state == "value":
      print(
        f"workdir {self._folder}: waiting up to {self._seconds:g} seconds for "
        f"{_holder(seen.value)} to be gone",
        flush=True,
      )
    while seen.state == "value" and time.monotonic() < until:
      time.sleep(self._seconds / 20)
      now = self._store.read(NAME).result()
      if now.state == "value" and now.value != seen.value:
        self._refuse(now.value)
      seen = now
    mine = self._write(seen.stamp.generation)
    if mine is None:
      self._refuse(self._store.read(NAME).result().value)
    return mine

  def _refuse(self, value: bytes) -> NoReturn:
    raise UserError(
      f"workdir {self._folder} is in use by {_holder(value)}: expected one run at a "
      "time"
    )

  def _keep(self) -> None:
    while not self._stop.wait(self._seconds / 3):
      # If the store cannot be reached now, the next attempt may succeed in time.
      with contextlib.suppress(ValueError):
        self._renew()
        if self._lost:
          return

  def _renew(self) -> None:
    mine = self._write(self._generation)
    if mine is None:
      now = self._store.read(NAME).result()
      if now.state == "value" and json.loads(now.value)["token"] != self._token:
        self._lost = _holder(now.value)
        return
      # It is from a write of this run whose answer was lost, or it was deleted.
      mine = now.stamp.generation
    self._generation = mine

  def _write(self, if_equal: bytes) -> bytes | None:
    """Replaces the object, and returns its generation; None if it has another one."""
    self._renewals += 1
    content = {
      "host": socket.gethostname(),
      "process": os.getpid(),
      "token": self._token,
      "renewals": self._renewals,
    }
    value = json.dumps(content)
    stamp = self._store.write(NAME, value, if_equal=if_equal).result()
    return stamp.generation or None


def _open(folder: epath.Path) -> Any:
  # Takes long to import, and most users of this module need no lease.
  import tensorstore

  spec = kvstore(folder)
  spec[f"{spec['driver']}_request_retries"] = _RETRIES
  return tensorstore.KvStore.open(spec).result()


def _holder(value: bytes) -> str:
  try:
    content = json.loads(value)
    return f"process {content['process']} on {content['host']}"
  except (ValueError, KeyError, TypeError):
    return f"the writer of {NAME}"
