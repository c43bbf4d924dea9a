"""Several processes as one run: joining, broadcasting, and stopping together."""

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

# A process that died is noticed by the others within this time.
HEARTBEAT_SECONDS = 20

_LONGEST_MESSAGE = 2000


def initialize() -> None:
  """Joins the run that this process is part of.

  On Cloud TPU, in Slurm, under Open MPI and in Kubernetes JAX finds the other
  processes by itself. Elsewhere it needs the environment variables
  `JAX_COORDINATOR_ADDRESS` (host:port of the first process), `JAX_NUM_PROCESSES` and
  `JAX_PROCESS_ID`.

  Raises:
    UserError: a variable is not a number, or JAX finds no other processes and the
      variables are not set.
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
  """Waits until all processes have called this function."""
  multihost_utils.sync_global_devices("all")


def leave(code: int) -> None:
  """Ends this process at once, although others may still wait for it.

  Args:
    code: the exit code.
  """
  if jax.process_index() == 0:
    # The first process is the coordinator. While it is there, the others can report
    # their own reason to stop in place of a lost connection.
    time.sleep(5)
  os._exit(code)


def first_process(work: Callable[[], None]) -> None:
  """Calls a function in the first process, while all others wait.

  Args:
    work: the function.

  Raises:
    UserError: in every process, if `work` raised one in the first process.
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
  """Broadcasts what a function returns in the first process.

  Args:
    value: is called in the first process only; returns a number that fits an int32.

  Returns:
    That number, in every process.
  """
  number = value() if jax.process_index() == 0 else 0
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _broadcast(message: str) -> str:
  sent = message.encode()[:_LONGEST_MESSAGE].ljust(_LONGEST_MESSAGE, b"\0")
  received = multihost_utils.broadcast_one_to_all(np.frombuffer(sent, np.uint8))
  return received.tobytes().rstrip(b"\0").decode(errors="ignore")


@contextlib.contextmanager
def termination() -> Iterator[Callable[[int], bool]]:
  """Listens for SIGTERM, which a machine receives before it is preempted.

  Yields:
    A function of a step that returns whether to stop after it. All processes must call
    it after every step. It returns the same in all of them, even if only one has
    received the signal.
  """
  if jax.distributed.is_initialized():
    yield multihost_utils.reached_preemption_sync_point
    return
  if threading.current_thread() is not threading.main_thread():
    yield lambda step: False  # only the main thread can set a signal handler
    return
  received = threading.Event()
  before = signal.signal(signal.SIGTERM, lambda *_: received.set())
  try:
    yield lambda step: received.is_set()
  finally:
    signal.signal(signal.SIGTERM, before)
