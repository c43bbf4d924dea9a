"""Replaces each system's mechanism by its base's, and demands that its tests notice.

  python tests/mutants.py [SYSTEM ...]

Each system's test file offers `without_mechanism(monkeypatch)`. The file is run once
with that called before each of its tests: at least one test has to fail. Lists the
systems whose tests all pass without the mechanism (survivors).
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
MUTATE = "MASKJAX_WITHOUT_MECHANISM"  # what tests/conftest.py heeds


def files() -> dict[str, Path]:
  """The test file of each system, by its name."""
  found = sorted((TESTS / "systems").glob("*/test_*.py"))
  return {file.stem.removeprefix("test_"): file for file in found}


def is_noticed(file: Path) -> bool:
  """Whether a test of a file fails without the system's mechanism."""
  done = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "--no-header", str(file)],
    env={**os.environ, MUTATE: "1"},
    cwd=TESTS.parent,
    capture_output=True,
    text=True,
  )
  if done.returncode not in (0, 1):  # of pytest: all passed, some failed
    raise SystemExit(f"{file.name} cannot be run:\n{done.stdout[-2000:]}")
  return done.returncode == 1


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("systems", nargs="*", help="names; all when none is given")
  wanted = parser.parse_args().systems
  known = files()
  unknown = sorted(set(wanted) - set(known))
  if unknown:
    raise SystemExit(f"no test file of: {', '.join(unknown)}")
  survivors = []
  for name in wanted or known:
    noticed = is_noticed(known[name])
    print(f"{name}: {'noticed' if noticed else 'SURVIVES'}", flush=True)
    survivors += [] if noticed else [name]
  if survivors:
    raise SystemExit(f"survivors: {', '.join(survivors)}")


if __name__ == "__main__":
  main()
