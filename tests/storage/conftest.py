"""Storage servers on loopback, for as long as the tests run."""

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from storage.proxy import Proxy

HERE = Path(__file__).parent
PACKAGES = {"gs": ("gcsfs", "gcp_storage_emulator"), "s3": ("s3fs", "moto")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store:
  """A server, and what a client of it needs to know.

  Attributes:
    scheme: `gs` or `s3`.
    root: a folder in its bucket that no other test uses.
    proxy: through which it is reached.
    kill: ends the server; what it keeps on disk, or it itself, outlives that.
    start: starts it again.
  """

  scheme: str
  root: str
  proxy: Proxy
  kill: Callable[[], None]
  start: Callable[[], None]

  def read(self, name: str) -> bytes:
    """The content of an object under `root`."""
    import fsspec

    return fsspec.open(f"{self.root}/{name}", "rb").open().read()


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def request(port: int, path: str, method: str = "GET", body: bytes | None = None):
  """Polls a server until it answers."""
  headers = {"Content-Type": "application/json"}
  until = time.monotonic() + 30
  while True:
    try:
      url = f"http://127.0.0.1:{port}{path}"
      to_send = urllib.request.Request(url, body, headers, method=method)
      with urllib.request.urlopen(to_send, timeout=10) as answer:
        return answer.read()
    except urllib.error.HTTPError as answer:
      with answer:
        return answer.read()
    except OSError:
      assert time.monotonic() < until, "the storage server does not start"
      time.sleep(0.05)


@dataclasses.dataclass
class Process:
  """A server's process, started again by the same command."""

  command: list[str]
  port: int
  running: subprocess.Popen[bytes] | None = None

  def start(self) -> None:
    self.running = subprocess.Popen(
      self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    request(self.port, "/")

  def kill(self) -> None:
    assert self.running is not None
    self.running.send_signal(signal.SIGKILL)
    self.running.wait()


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Proxy]]:
  port, folder = free_port(), tmp_path_factory.mktemp("gcs")
  command = [sys.executable, str(HERE / "gcs_server.py"), str(port), str(folder)]
  server = Process(command, port)
  server.start()
  request(
    port, "/storage/v1/b?project=p", "POST", json.dumps({"name": "tests"}).encode()
  )
  proxy = Proxy(port)
  yield server, proxy
  proxy.close()
  server.kill()


@pytest.fixture(scope="session")
def amazon() -> Iterator[tuple[Process, Proxy]]:
  port = free_port()
  server = Process([sys.executable, "-m", "moto.server", "-p", str(port)], port)
  server.start()
  request(port, "/tests", "PUT")
  proxy = Proxy(port)
  yield server, proxy
  proxy.close()
  server.kill()


@pytest.fixture(params=PACKAGES)
def store(
  request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Store:
  """Each server in turn; the environment has its address."""
  scheme = request.param
  for package in PACKAGES[scheme]:
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"{scheme}:// is not tested without {package}: see maskjax[test]")
  server, proxy = request.getfixturevalue("google" if scheme == "gs" else "amazon")
  for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
    monkeypatch.delenv(name)
  address = f"http://127.0.0.1:{proxy.port}"
  environment = {
    "MASKJAX_CACHE": str(tmp_path / "cache"),
    "STORAGE_EMULATOR_HOST": address,
    "TENSORSTORE_GCS_HTTP_URL": address,
    "FSSPEC_GCS_TOKEN": "anon",
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which asks Google itself
    "AWS_ENDPOINT_URL": address,
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
  }
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  persists = scheme == "gs"  # moto keeps all in memory: its connection is cut instead
  return Store(
    scheme=scheme,
    root=f"{scheme}://tests/{tmp_path.name}",
    proxy=proxy,
    kill=server.kill if persists else proxy.down,
    start=server.start if persists else proxy.up,
  )
