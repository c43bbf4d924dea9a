"""Several processes as one run: starting them, agreeing, and being told to stop."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from maskjax.errors import UserError

# The others learn within this time that a process is gone.
HEARTBEAT_SECONDS = 20

_LONGEST_MESSAGE = 2000


def initialize() -> None:
  """Joins the run that this process is part of; the one place that does so.

  On Cloud TPU, in Slurm, under Open MPI and in Kubernetes JAX finds the other
  processes by itself. Elsewhere `JAX_COORDINATOR_ADDRESS` (host:port of the first
  process), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` say who they are.

  Raises:
    UserError: there is nothing to tell which processes there are.
  """
  given: dict[str, Any] = {}
  for key in ("num_processes", "process_id"):
    name = f"JAX_{key.upper()}"
    if name in os.environ:
      if not os.environ[name].isdigit():
        raise UserError(f"{name}={os.environ[name]!r}: expected a number")
      given[key] = int(os.environ[name])
  try:
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **given)
  except ValueError as error:
    raise UserError(
      f"--distributed: {error} Expected Cloud TPU, Slurm, Open MPI or Kubernetes, or "
      "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment"
    ) from error


def wait_for_all() -> None:
  """Waits until all processes are here."""
  multihost_utils.sync_global_devices("all")


def leave(code: int) -> None:
  """Ends this process without waiting for the others, which may wait for it."""
  if jax.process_index() == 0:
    # It is the one that all talk to: who stops for the same reason says so first.
    time.sleep(5)
  os._exit(code)


def first_process(work: Callable[[], None]) -> None:
  """Lets the first process do something, on which all others wait.

  Raises:
    UserError: in every process, where `work` raised it in the first.
  """
  message = ""
  if jax.process_index() == 0:
    try:
      work()
    except UserError as error:
      message = str(error)
  if message := _broadcast(message):
    raise UserError(message)


def from_first_process(value: Callable[[], int]) -> int:
  """What a function gives in the first process, an int32, for all."""
  number = value() if jax.process_index() == 0 else 0
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _broadcast(message: str) -> str:
  sent = message.encode()[:_LONGEST_MESSAGE].ljust(_LONGEST_MESSAGE, b"\0")
  received = multihost_utils.broadcast_one_to_all(np.frombuffer(sent, np.uint8))
  return received.tobytes().rstrip(b"\0").decode(errors="ignore")


@contextlib.contextmanager
def termination() -> Iterator[Callable[[int], bool]]:
  """Listens for SIGTERM, which a machine gets before it is taken away.

  Yields:
    A function of a step that tells whether to stop after it. All processes must ask
    it after every step, and get the same answer although perhaps one alone was told.
  """
  if jax.distributed.is_initialized():
    yield multihost_utils.reached_preemption_sync_point
    return
  if threading.current_thread() is not threading.main_thread():
    yield lambda step: False  # Python lets no other thread listen
    return
  told = threading.Event()
  before = signal.signal(signal.SIGTERM, lambda *_: told.set())
  try:
    yield lambda step: told.is_set()
  finally:
    signal.signal(signal.SIGTERM, before)
