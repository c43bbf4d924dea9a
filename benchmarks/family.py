"""What the tables of families share: runs of small settings, and what they take."""

import resource
import subprocess
import sys
from pathlib import Path

from maskjax import config as configs
from maskjax import workdir


def run_folder(name: str, seed: int = 0) -> Path:
  """The workdir of a system; that of seed 0 is where configs look for teachers."""
  return Path(f"runs/{name}_small" + (f"_{seed}" if seed else ""))


def train(spec: str, folder: Path, seed: int = 0) -> float:
  """Trains a config unless that is done; gives the minutes of one core that it took."""
  clock = folder / "minutes.txt"
  if not clock.exists():
    before = processor_seconds()
    command = [sys.executable, "-m", "maskjax.main", "train", "--config", spec]
    command += ["--workdir", str(folder), f"--config.seed={seed}"]
    quiet = ["--config.eval.probes=()", f"--config.checkpoint.every={10**6}"]
    subprocess.run([*command, *quiet], check=True)
    clock.write_text(str((processor_seconds() - before) / 60))
  found, wanted = workdir.read_config(folder), configs.load(spec)
  wanted.seed = seed
  changed = configs.differences(*(configs.plain(c) for c in (found, wanted)))
  if changed:
    raise SystemExit(f"{folder} is a run of another config: {'; '.join(changed)}")
  return float(clock.read_text())


def processor_seconds() -> float:
  """What the processes took that this one started, on all cores together."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime
