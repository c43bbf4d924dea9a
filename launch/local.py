"""Runs `maskjax` as several processes on this machine, for tests and debugging.

  python launch/local.py --processes 4 -- train --config FILE --workdir DIR

Nothing needs to be edited. The simulated CPU devices (`--devices` in all, by default
one per process) are split among the processes; with `--accelerators` they use this
machine's accelerators instead. `--distributed` is added to the command after `--`. The
exit code is the first one of a process that is not 0, less than a minute after it.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

# Longer than a process takes to notice that another one has died.
PATIENCE_SECONDS = 60


def main() -> int:
  """Starts the processes, waits for them, and returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--processes", type=int, default=2)
  parser.add_argument("--devices", type=int, help="simulated CPU devices in all")
  parser.add_argument("--accelerators", action="store_true", help="do not simulate")
  parser.add_argument("command", nargs="+", help="after --: train --config ...")
  options = parser.parse_args()
  devices = options.processes if options.devices is None else options.devices
  if options.processes < 1 or devices < 1 or devices % options.processes:
    parser.error(
      f"--devices {devices}: expected a multiple of --processes {options.processes}"
    )
  environment = dict(os.environ)
  if not options.accelerators:
    flag = f"--xla_force_host_platform_device_count={devices // options.processes}"
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}"
    environment["JAX_PLATFORMS"] = "cpu"
  with socket.socket() as free:
    free.bind(("localhost", 0))
    environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{free.getsockname()[1]}"
  environment["JAX_NUM_PROCESSES"] = str(options.processes)
  command = [sys.executable, "-m", "maskjax.main", *options.command, "--distributed"]
  running = [
    subprocess.Popen(command, env={**environment, "JAX_PROCESS_ID": str(i)})
    for i in range(options.processes)
  ]
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda sent, _: [p.send_signal(sent) for p in running])
  return _wait(running)


def _wait(running: list[subprocess.Popen]) -> int:
  """Waits for all processes; kills them `PATIENCE_SECONDS` after one has failed."""
  deadline, first = float("inf"), 0
  ended: set[int] = set()
  while len(ended) < len(running):
    for i, process in enumerate(running):
      code = process.poll()
      if code is None and time.monotonic() > deadline:
        process.kill()
      if code and i not in ended:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        print(f"local.py: process {i} ended with {how}", file=sys.stderr, flush=True)
        first = first or (code if code > 0 else 128 - code)
        deadline = min(deadline, time.monotonic() + PATIENCE_SECONDS)
      if code is not None:
        ended.add(i)
    time.sleep(0.05)
  return first


if __name__ == "__main__":
  sys.exit(main())
