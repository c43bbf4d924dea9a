"""One, two and four processes train alike on any mesh of four devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.quick_xla import QUICK_XLA
from helpers.running import ROOT, finish, tiny_config

from maskjax import experiment

WORKER = Path(__file__).parent / "worker.py"


def run(processes, folder):
  """What each of the processes wrote."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  running = [
    subprocess.Popen(
      [sys.executable, WORKER, folder],
      env={
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "XLA_FLAGS": f"{QUICK_XLA} "
        f"--xla_force_host_platform_device_count={4 // processes}",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(i),
      },
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(processes)
  ]
  errors = [finish(process)[1] for process in running]
  assert all(process.returncode == 0 for process in running), errors
  return [json.loads((folder / f"{i}.json").read_text()) for i in range(processes)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  return {n: run(n, tmp_path_factory.mktemp(f"{n}")) for n in (1, 2, 4)}


def test_same_losses(found):
  expected = found[1][0]["losses"][0]
  assert len(expected) == 10 and expected[-1] < expected[0]
  for processes in found.values():
    for process in processes:
      for losses in process["losses"]:
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_example_once_an_epoch(found, n):
  indices = list(range(len(experiment.prepare(tiny_config()).train.source)))
  parts = zip(*(process["seen"] for process in found[n]), strict=True)
  order = [index for step in parts for rows in step for index in rows]
  first, second = order[: len(indices)], order[len(indices) : 2 * len(indices)]
  assert sorted(first) == indices and sorted(second) == indices
  assert first != second
