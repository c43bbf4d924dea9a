"""What the first training steps of every small setting give, to compare two versions.

  python benchmarks/reference_steps.py write FILE
  python benchmarks/reference_steps.py compare FILE [--only NAME ...]

`write` trains each setting named `small...` or `digits` for 20 steps and stores its
losses, a checksum of its parameters and the loss of one held-out batch; `compare` does
the same and prints a line a setting, with the largest relative difference. Frozen
teachers keep the parameters they were made with, so that nothing has to be trained
before. Two versions of the code are compared by running `write` in one and `compare` in
the other, on the same machine.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from maskjax import config as configs
from maskjax import evaluation, experiment, training

STEPS = 20
TOLERANCE = 1e-6
ROOT = Path(__file__).parent.parent


def specs() -> list[str]:
  """`FILE:SETTING` of every small setting."""
  found = []
  for file in sorted((ROOT / "configs").rglob("*.py")):
    path = str(file.relative_to(ROOT))
    names = configs.settings(path)
    found += [f"{path}:{n}" for n in names if n.startswith("small") or n == "digits"]
  return found


def measure(spec: str) -> dict[str, Any]:
  """Trains a setting for a few steps: losses, checksum and held-out loss."""
  config = configs.load(spec)
  config.init_from = ""
  config = config.copy_and_resolve_references()
  prepared = experiment.prepare(config)
  losses = []
  with prepared.train(0) as batches:
    batch = next(batches)
    with jax.set_mesh(prepared.mesh):
      ready = training.step.program(
        prepared.objective,
        prepared.optimizer,
        batch,
        prepared.key,
        num_steps=config.num_steps,
        mesh=prepared.mesh,
        microbatches=config.microbatches,
        ema_decay=config.ema_decay,
      )
      state = ready.init(batch, prepared.key)
      for _ in range(STEPS):
        state, metrics = ready.step(state, batch)
        losses.append(float(metrics["loss"].value()))
        batch = next(batches)
      held_out = _held_out(prepared, state, batch)
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
  digests = sorted(hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in leaves)
  return {
    "losses": losses,
    "held_out": held_out,
    "norm": math.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in leaves)),
    "checksum": hashlib.sha256("".join(digests).encode()).hexdigest()[:16],
  }


def _held_out(prepared: Any, state: Any, batch: Any) -> float:
  """The held-out loss of a batch."""
  step = evaluation.evaluation_step(prepared.step(STEPS))
  evaluate = jax.jit(prepared.abilities.evaluate)
  return float(evaluate(state.variables, batch, step).value())


def difference(old: dict[str, Any], new: dict[str, Any]) -> float:
  """The largest relative difference of two measurements; 0 bit for bit."""
  if old == new:
    return 0.0

  def numbers(found: dict[str, Any]) -> np.ndarray:
    return np.array([*found["losses"], found["held_out"], found["norm"]])

  a, b = numbers(old), numbers(new)
  # Where the numbers agree, the checksums still differ.
  return max(float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1e-12))), 1e-16)


def main() -> None:
  """Runs the command that the command line names."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("do", choices=("write", "compare"))
  parser.add_argument("file", type=Path)
  parser.add_argument("--only", nargs="*", help="settings whose path has one of these")
  given = parser.parse_args()
  stored = json.loads(given.file.read_text()) if given.file.exists() else {}
  bad = 0
  for spec in specs():
    if given.only and not any(name in spec for name in given.only):
      continue
    if given.do == "write" and spec in stored:
      continue
    if given.do == "compare" and spec not in stored:
      print(f"{spec}: not recorded in {given.file}", flush=True)
      continue
    start = time.monotonic()
    found = measure(spec)
    took = time.monotonic() - start
    if given.do == "write":
      stored[spec] = found
      given.file.write_text(json.dumps(stored, indent=1))
      print(f"{spec}: loss {found['losses'][-1]:.6g}, {took:.0f} s", flush=True)
      continue
    apart = difference(stored[spec], found)
    word = "bit for bit" if apart == 0 else f"{apart:.1e}"
    word = word if apart <= TOLERANCE else f"{word} DIFFERS"
    bad += apart > TOLERANCE
    print(f"{spec}: loss {found['losses'][-1]:.6g}, {word}, {took:.0f} s", flush=True)
    jax.clear_caches()
  sys.exit(bool(bad))


if __name__ == "__main__":
  main()
