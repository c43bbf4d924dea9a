"""Eight simulated devices for all tests; a test that needs one takes one."""

import ctypes
import gc
import os

from helpers.quick_xla import QUICK_XLA

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK_XLA}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["PYTHONFAULTHANDLER"] = "1"  # processes that are aborted show their threads

# What is set above has to be so before JAX is imported.
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from helpers.running import DIGITS, TINY, Refused, check_refusal, process
from mutants import MUTATE

from maskjax import main


def pytest_configure(config: pytest.Config) -> None:
  """What one process has compiled the others need not: tests start many."""
  # Tracing makes many objects and little garbage.
  gc.set_threshold(100_000, 20, 20)
  if not hasattr(config, "workerinput"):  # of pytest-xdist, which copy the environment
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="maskjax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


def pytest_unconfigure(config: pytest.Config) -> None:
  if not hasattr(config, "workerinput"):
    shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def resident_bytes() -> int:
  """Memory that this process holds, where the system tells; else past any limit."""
  statm = Path("/proc/self/statm")
  if not statm.exists():
    return sys.maxsize
  return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
  """Drops what JAX has compiled, once a module leaves a worker with too much of it.

  Without this a worker grows to more than 6 GiB over the whole suite. After every
  module would be too often, since all use the same small operations.
  """
  yield
  if resident_bytes() < 2.2 * 2**30:
    return
  jax.clear_caches()
  gc.collect()
  if sys.platform == "linux":  # where the allocator keeps what was freed
    ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def call(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
  """Runs a command in this process: exit code, standard output, standard error."""

  def run(*arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["maskjax", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
      main.main()
    written = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, written.out, written.err

  return run


@pytest.fixture
def refused(call: Callable[..., tuple[int, str, str]]) -> Refused:
  """Runs a command that must be refused with one line, and returns the line."""

  def run(*arguments: object) -> str:
    code, _, err = call(*arguments)
    return check_refusal(code, err)

  return run


@pytest.fixture(autouse=True)
def mutated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
  """Takes the mechanism from a system where `tests/mutants.py` wants to see it fail."""
  if MUTATE in os.environ:
    request.module.without_mechanism(monkeypatch)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A run of two steps with a checkpoint of each."""
  folder = tmp_path_factory.mktemp("runs") / "trained"
  code, _, err = process("train", "--config", DIGITS, "--workdir", folder, *TINY)
  assert (code, err) == (0, "")
  return folder
