"""Trains the small setting of every image system, and compares what they learnt.

  python benchmarks/image_family.py

writes docs/results/image.md, and runs/SYSTEM_small. Each system has the same budget of
about four minutes on two CPU cores; nothing else should run beside it. Runs that are
finished are not done again, so that the table can be made piece by piece.
"""

import argparse
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

from maskjax import config as configs
from maskjax import evaluation, experiment, workdir
from maskjax.evaluation.probes import PROBES
from maskjax.systems import systems

TABLE = Path(__file__).parent.parent / "docs/results/image.md"
PROBED = ("plain", "linear", "knn")
# Teachers come before those that learn from them.
FIRST = ("mae", "vqkd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """What one encoder is worth.

  Attributes:
    name: of the system, or of what it is compared with.
    minutes: of training; None where there was none.
    scores: accuracies by probe, from 0 to 1.
    rank: effective rank of the covariance of its features.
    width: number of features.
  """

  name: str
  minutes: float | None
  scores: dict[str, float]
  rank: float
  width: int

  def line(self, gain: float | None) -> str:
    """The row as Markdown."""
    numbers = " | ".join(f"{100 * self.scores[name]:.1f}" for name in PROBED)
    minutes = "" if self.minutes is None else f"{self.minutes:.1f}"
    gained = "" if gain is None else f"{100 * gain:+.1f}"
    rank = f"{self.rank:.1f} ({100 * self.rank / self.width:.0f} %)"
    return f"| {self.name} | {numbers} | {gained} | {rank} | {minutes} |"


def train(spec: str, folder: Path) -> float:
  """Trains a config unless that is done; gives the minutes that it took."""
  clock = folder / "minutes.txt"
  if not clock.exists():
    begun = time.monotonic()
    command = [sys.executable, "-m", "maskjax.main", "train", "--config", spec]
    quiet = ["--config.eval.probes=()", f"--config.checkpoint.every={10**6}"]
    subprocess.run([*command, "--workdir", str(folder), *quiet], check=True)
    clock.write_text(str((time.monotonic() - begun) / 60))
  return float(clock.read_text())


def judge(name: str, minutes: float | None, known: tuple, asked: tuple) -> Row:
  """Probes features: pairs of float [E, D] and labels."""
  return Row(
    name=name,
    minutes=minutes,
    scores={probe: PROBES[probe](*known, *asked) for probe in PROBED},
    rank=evaluation.effective_rank(asked[0]),
    width=asked[0].shape[1],
  )


def rows(name: str, config: str) -> list[Row]:
  """The trained encoder of a system, and the same one untrained."""
  folder = Path(f"runs/{name}_small")  # where configs look for their teachers
  minutes = train(f"{config}:small", folder)
  prepared = experiment.prepare(workdir.read_config(folder))
  _, params = workdir.checkpoints(folder, prepared.config).restore_weights()
  read = evaluation.pooled_features(prepared.objective.features, prepared.mesh)
  found = []
  for label, given, took in (
    (name, params, minutes),
    ("untrained", prepared.untrained().params, None),
  ):
    sets = (read(given, data) for data in (prepared.train_once, prepared.test))
    found.append(judge(label, took, *sets))
  return found


def pixels() -> Row:
  """The images themselves."""
  prepared = experiment.prepare(configs.load("configs/image/mae.py:small"))

  def flat(_, batch):
    return batch["image"].reshape(len(batch["image"]), -1)

  read = evaluation.pooled_features(flat, prepared.mesh)
  sets = (read(None, data) for data in (prepared.train_once, prepared.test))
  return judge("raw pixels", None, *sets)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default="", help="names, with commas between them")
  options = parser.parse_args()
  known = {s.name: s for s in systems() if s.family == "image"}
  names = options.only.split(",") if options.only else list(known)
  names = [*(n for n in FIRST if n in names), *(n for n in names if n not in FIRST)]
  lines = []
  for name in names:
    trained, untrained = rows(name, known[name].config)
    gain = trained.scores["plain"] - untrained.scores["plain"]
    lines += [trained.line(gain), untrained.line(None)]
    print(*lines[-2:], sep="\n", flush=True)
  lines.append(pixels().line(None))
  TABLE.parent.mkdir(exist_ok=True)
  TABLE.write_text("\n".join([HEAD, *lines]) + "\n")


HEAD = """\
# Image systems, side by side

Each trained for about four minutes on two CPU cores on Fashion-MNIST (28x28 pixels), by
`configs/image/SYSTEM.py:small`; below each, the same encoder untrained. Accuracies in
percent: `plain` is a linear probe stopped after 30 steps of L-BFGS, `linear` the same
converged, `knn` a vote of 20 neighbours. The gain is that of `plain` over the
untrained encoder. The rank is the effective rank of the features' covariance, and its
share of the width: a collapsed encoder has a rank near 1.

    python benchmarks/image_family.py

| encoder | plain | linear | knn | gain | rank | minutes |
|---|---|---|---|---|---|---|"""


if __name__ == "__main__":
  main()
