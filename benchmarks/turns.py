"""Candidates that take turns, each in a process of its own.

So that a noisy machine disturbs them alike. A script that calls `compare` is started
once more for each candidate, with `--worker NAME`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping


def compare(
  script: str, candidates: Mapping[str, Callable[[], Callable[[], float]]], about: str
) -> dict[str, list[float]]:
  """Takes the steps of candidates in turns.

  Args:
    script: the file that calls this.
    candidates: by name, what makes a step, which gives a loss.
    about: the script's docstring.

  Returns:
    The seconds of each candidate's steps.
  """
  parser = argparse.ArgumentParser(description=about)
  parser.add_argument("--turns", type=int, default=10)
  parser.add_argument("--worker", choices=candidates)
  options = parser.parse_args()
  if options.worker:
    _work(candidates[options.worker]())
    sys.exit()
  workers = {name: _start(script, name) for name in candidates}
  seconds: dict[str, list[float]] = {name: [] for name in workers}
  for _ in range(options.turns):
    for name, worker in workers.items():
      worker.stdin.write("\n")
      worker.stdin.flush()
      seconds[name].append(json.loads(worker.stdout.readline())[0])
  for worker in workers.values():
    worker.stdin.close()
  return seconds


def _start(script: str, name: str) -> subprocess.Popen:
  worker = subprocess.Popen(
    [sys.executable, script, "--worker", name],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  while worker.stdout.readline() != "ready\n":
    assert worker.poll() is None, f"{name} ended"
  return worker


def _work(step: Callable[[], float]) -> None:
  """Takes one step for each line on standard input, and prints its seconds."""
  step()
  step()
  print("ready", flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    loss = step()
    print(json.dumps([time.perf_counter() - start, loss]), flush=True)
