"""Who may write to a folder on object storage."""

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

  It is an object that its holder replaces every few seconds, on condition that it
  still is as the holder left it. Who wants the right watches the object: one that
  changes is held, one that does not for `seconds` has been left behind. So no clock
  is compared with that of another host.

  Args:
    folder: the folder on object storage.
    seconds: how long a right lasts that is not renewed.

  Raises:
    UserError: another run holds it, named by host and process; or it cannot be
      written.
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
    except ValueError as error:  # which is all that TensorStore raises
      if isinstance(error, UserError):
        raise
      raise UserError(f"workdir {folder} cannot be written: {brief(error)}") from error
    self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises a `RunError` if another run has taken the right away."""
    if self._lost:
      raise RunError(
        f"workdir {self._folder} was taken over by {self._lost}, after this run "
        f"could not reach it for {self._seconds:g} seconds"
      )

  def release(self) -> None:
    """Lets go, so that the next run need not wait."""
    self._stop.set()
    self._thread.join()
    # It runs out by itself where it cannot be deleted.
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
      # Out of reach, it may be the next time, and may still be this run's.
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
      # Its own, from a write whose answer was lost; or somebody has deleted it.
      mine = now.stamp.generation
    self._generation = mine

  def _write(self, if_equal: bytes) -> bytes | None:
    """Replaces the object; None if it is not the expected one."""
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
  # Orbax imports it anyway, but not everything that imports this file needs it.
  import tensorstore

  spec = kvstore(folder)
  spec[f"{spec['driver']}_request_retries"] = _RETRIES
  return tensorstore.KvStore.open(spec).result()


def _holder(value: bytes) -> str:
  try:
    content = json.loads(value)
    return f"process {content['process']} on {content['host']}"
  except (ValueError, KeyError, TypeError):
    return f"who wrote {NAME}"
