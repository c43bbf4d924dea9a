"""Trains on digits twenty times, harms each run once, and compares how it ends.

  python benchmarks/faults.py [--runs 20] [--seed 0]

Needs root for the full disk (a small tmpfs). Prints the table of docs/reliability.md:
each run is resumed by the command that began it, and its final parameters are compared
with those of an undisturbed run: bit for bit on the same devices, on others to 1e-5 of
each array's largest value. There the biases of the keys are left out: the softmax
cancels them, and their gradient is a rounding error that Adam scales up to a step.
"""

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from maskjax.sharding import path_name
from maskjax.training.checkpoints import Checkpoints

STEPS, EVERY = 300, 20
ROOT = Path(__file__).parent.parent
LOCAL = (sys.executable, str(ROOT / "launch" / "local.py"))
TRAIN = (
  *("train", "--config", "configs/image/mae.py:digits"),
  f"--config.num_steps={STEPS}",
  "--config.optimizer.warmup_steps=50",
  f"--config.checkpoint.every={EVERY}",
  *("--config.log_every=20", "--config.eval.every=0"),
  *("--config.eval.probes=()", "--config.eval.pictures=0"),
)


@dataclasses.dataclass
class Run:
  """A run in a workdir, on some processes and devices."""

  workdir: Path
  cache: Path
  processes: int = 1
  devices: int = 2
  mesh: str = "data"

  def start(self) -> subprocess.Popen:
    """Starts it, or goes on with it."""
    return subprocess.Popen(
      [
        *(*LOCAL, "--processes", str(self.processes), "--devices", str(self.devices)),
        *("--", *TRAIN, "--workdir", str(self.workdir)),
        f"--config.mesh.{self.mesh}={self.devices}",
        *(["--config.mesh.data=1"] if self.mesh != "data" else []),
        f"--config.compilation_cache={self.cache}",
      ],
      env={**os.environ, "PYTHONPATH": str(ROOT)},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )

  @property
  def checkpoints(self) -> Path:
    """Where its checkpoints lie."""
    return self.workdir / "checkpoints"

  def steps(self) -> list[int]:
    """The steps of its finished checkpoints, ascending."""
    if not self.checkpoints.exists():
      return []
    return sorted(int(p.name) for p in self.checkpoints.iterdir() if p.name.isdigit())

  def wait_for(self, what: Callable[[], bool], running: subprocess.Popen) -> None:
    """Waits until something is true while the run goes on."""
    while not what():
      if running.poll() is not None:
        raise SystemExit(f"the run ended before it was harmed: {running.stderr.read()}")
      time.sleep(0.001)

  def middle(self, running: subprocess.Popen, rng: np.random.Generator) -> None:
    """Waits until a random moment after a few checkpoints."""
    after = int(rng.integers(2, 8)) * EVERY
    self.wait_for(lambda: self.steps()[-1:] >= [after], running)
    time.sleep(rng.uniform(0, 0.3))


def children(running: subprocess.Popen) -> list[int]:
  """The processes of `maskjax` itself."""
  command = ["pgrep", "-P", str(running.pid)]
  listed = subprocess.run(command, capture_output=True, text=True, check=True)
  return [int(pid) for pid in listed.stdout.split()]


def end(running: subprocess.Popen) -> str:
  """Waits for the end of a harmed run; returns how it ended."""
  running.communicate(timeout=120)
  return f"exit code {running.returncode}"


def killed(run: Run, rng: np.random.Generator) -> str:
  """SIGKILL at a random moment."""
  running = run.start()
  run.middle(running, rng)
  for pid in children(running):
    os.kill(pid, signal.SIGKILL)
  return end(running)


def killed_in_save(run: Run, rng: np.random.Generator) -> str:
  """SIGKILL during a save."""
  running = run.start()
  run.middle(running, rng)
  run.wait_for(lambda: any(run.checkpoints.glob("*tmp*")), running)
  for pid in children(running):
    os.kill(pid, signal.SIGKILL)
  return end(running)


def terminated(run: Run, rng: np.random.Generator) -> str:
  """SIGTERM."""
  running = run.start()
  run.middle(running, rng)
  os.kill(rng.choice(children(running)), signal.SIGTERM)
  return end(running)


def truncated(run: Run, rng: np.random.Generator) -> str:
  """A truncated newest checkpoint."""
  killed(run, rng)
  path = _file_of_newest(run, rng)
  path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])
  return f"step {run.steps()[-1]}: {path.name[:20]} cut off"


def flipped(run: Run, rng: np.random.Generator) -> str:
  """A flipped byte in the newest checkpoint."""
  killed(run, rng)
  path = _file_of_newest(run, rng)
  content = bytearray(path.read_bytes())
  content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
  path.write_bytes(content)
  return f"step {run.steps()[-1]}: one bit of {path.name[:20]}"


def _file_of_newest(run: Run, rng: np.random.Generator) -> Path:
  """A file that holds arrays."""
  newest = run.checkpoints / str(run.steps()[-1])
  return rng.choice(sorted(p for p in newest.rglob("d/*") if p.stat().st_size))


def full_disk(run: Run, rng: np.random.Generator) -> str:
  """A full disk."""
  run.workdir.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(run.workdir)]
  subprocess.run(mount, check=True)
  running = run.start()
  run.middle(running, rng)
  padding = run.workdir / "padding"
  with padding.open("wb", buffering=0) as file:
    try:
      while file.write(b"\0" * 2**16):
        pass
    except OSError:
      pass
  how = end(running)
  padding.unlink()
  return how


def killed_peer(run: Run, rng: np.random.Generator) -> str:
  """SIGKILL of one of two processes."""
  run.processes = 2
  running = run.start()
  run.middle(running, rng)
  begun = time.monotonic()
  os.kill(rng.choice(children(running)), signal.SIGKILL)
  how = end(running)
  return f"all gone after {time.monotonic() - begun:.0f} s, {how}"


FAULTS = (
  killed,
  killed_in_save,
  terminated,
  truncated,
  flipped,
  full_disk,
  killed_peer,
)


def parameters(workdir: Path) -> dict[str, np.ndarray]:
  """The final parameters of a run, as they are on disk."""
  reader = Checkpoints(workdir / "checkpoints")
  arrays = reader.restore_weights(STEPS)[1]
  reader.close()
  return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(arrays)}


def difference(found: dict, expected: dict, *, same_devices: bool) -> float:
  """The largest difference of an array, by the largest value in it."""
  assert found.keys() == expected.keys()
  return max(
    float(np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max())
    for name in expected
    if same_devices or not name.endswith("key/bias")
  )


def main() -> None:
  """Harms the runs and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--runs", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  rng = np.random.default_rng(options.seed)
  root = Path(tempfile.mkdtemp())
  finished = Run(root / "undisturbed", root / "cache")
  running = finished.start()
  messages = running.communicate()[1]
  if running.returncode != 0:
    raise SystemExit(f"the undisturbed run failed: {messages}")
  expected = parameters(finished.workdir)
  print("| run | fault | how it ended | resumed on | from step | difference |")
  print("|---|---|---|---|---|---|")
  failures = 0
  for number in range(1, options.runs + 1):
    run = Run(root / f"run_{number}", root / "cache")
    fault = FAULTS[rng.integers(len(FAULTS))]
    how = fault(run, rng)
    alone = run.processes == 1
    before = run.steps()
    # The same devices, or others.
    run.processes, run.devices, run.mesh = [
      (1, 2, "data"),
      (2, 2, "data"),
      (1, 1, "data"),
      (2, 4, "fsdp"),
    ][rng.integers(4)]
    same = alone and (run.processes, run.devices) == (1, 2)
    running = run.start()
    messages = running.communicate()[1]
    from_step = max((s for s in before if f"of step {s} in" not in messages), default=0)
    if running.returncode == 0:
      final = parameters(run.workdir)
      off = difference(final, expected, same_devices=same)
      good = off == 0 if same else off <= 1e-5
      verdict = "none" if off == 0 else f"{off:.1e}"
    else:
      good, verdict = False, f"exit code {running.returncode}: {messages[-200:]}"
    failures += not good
    on = f"{run.processes} x {run.devices // run.processes} {run.mesh}"
    doc = (fault.__doc__ or "").strip(".")
    print(f"| {number} | {doc} | {how} | {on} | {from_step} | {verdict} |", flush=True)
    if fault is full_disk:
      subprocess.run(["umount", str(run.workdir)], check=True)
  print(f"\n{options.runs - failures} of {options.runs} ended as the undisturbed run.")
  sys.exit(bool(failures))


if __name__ == "__main__":
  main()
