"""Trains the small setting of every image system, and compares what they learned.

  python benchmarks/image_family.py

writes docs/results/image.md, and runs/SYSTEM_small. Each system has the same budget,
eight minutes of a CPU core; `taskset -c 0` keeps a run on one. Runs that are finished
and probed are not done again, so that the table can be made piece by piece, with
`--only`.

`--curves` trains each under a second seed, and stores what to expect of the settings
beside their configs, for `maskjax check`.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from family import run_folder, train

from maskjax import config as configs
from maskjax import curves, evaluation, experiment, networks, workdir
from maskjax.evaluation.probes import PROBES
from maskjax.objectives import Variables
from maskjax.systems import records

TABLE = Path(__file__).parent.parent / "docs/results/image.md"
PROBED = ("plain", "linear", "knn")
# Teachers come before those that learn from them.
FIRST = ("mae", "vqkd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """What features are worth.

  Attributes:
    scores: accuracies by probe, from 0 to 1.
    ranks: effective rank by whose, see `maskjax.evaluation.effective_rank`.
    width: number of features.
  """

  scores: dict[str, float]
  ranks: dict[str, float]
  width: int

  def line(
    self, name: str, gain: float | None = None, minutes: float | None = None
  ) -> str:
    """The row as Markdown."""
    numbers = " | ".join(f"{100 * self.scores[name]:.1f}" for name in PROBED)
    gained = "" if gain is None else f"{100 * gain:+.1f}"
    ranks = " | ".join(
      f"{rank:.1f} ({100 * rank / self.width:.0f} %)" for rank in self.ranks.values()
    )
    took = "" if minutes is None else f"{minutes:.1f}"
    return f"| {name} | {numbers} | {gained} | {ranks} | {took} |"


def kept(file: Path, find: Callable[[], Row]) -> Row:
  """What a file has; where there is none, what is found, and written there."""
  if not file.exists():
    row = find()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(dataclasses.asdict(row), indent=1))
  return Row(**json.loads(file.read_text()))


def probed(features: Any, variables: Any, prepared: Any) -> Row:
  """Probes features."""
  read = evaluation.pooled_features(features, prepared.mesh)
  of_train, of_test = (
    read(variables, data) for data in (prepared.train_once, prepared.test)
  )
  return Row(
    scores={name: PROBES[name](*of_train, *of_test) for name in PROBED},
    ranks={
      of: evaluation.effective_rank(of_test[0], of=of)
      for of in ("features", "covariance")
    },
    width=of_test[0].shape[1],
  )


def probe_run(folder: Path, *, trained: bool = True) -> Row:
  """Probes the features of a finished run, or those that it began with."""

  def find() -> Row:
    prepared = experiment.prepare(workdir.read_config(folder), learns=False)
    objective, variables = prepared.objective, prepared.untrained()
    if trained:
      checkpoints = workdir.checkpoints(folder, prepared.config)
      step, params = networks.stored(prepared.config, objective, checkpoints)
      variables = Variables(params, checkpoints.restore_extra(step, variables.extra))
    return probed(objective.features, variables, prepared)

  return kept(folder / ("trained.json" if trained else "untrained.json"), find)


def lines(name: str, config: str) -> list[str]:
  """The trained encoder of a system, and the same one untrained."""
  minutes = train(f"{config}:small", run_folder(name))
  trained, untrained = (
    probe_run(run_folder(name), trained=yes) for yes in (True, False)
  )
  gain = trained.scores["plain"] - untrained.scores["plain"]
  return [trained.line(name, gain, minutes), untrained.line("untrained")]


def record(name: str, config: str) -> None:
  """Stores the curve of a system's setting, of runs under two seeds."""
  spec, runs = f"{config}:small", []
  for seed in (0, 1):
    folder = run_folder(name, seed)
    train(spec, folder, seed)
    scores = probe_run(folder).scores
    steps = configs.load(spec).num_steps
    probes = {f"eval/{name}": {steps: scores[name]} for name in ("knn", "linear")}
    runs.append({**curves.written(folder), **probes})
  print(f"recorded: {curves.store(spec, configs.load(spec), runs)}", flush=True)


def pixels() -> Row:
  """Probes the images themselves."""

  def flat(_, batch):
    return batch["image"].reshape(len(batch["image"]), -1)

  prepared = experiment.prepare(configs.load("configs/image/mae.py:small"))
  return probed(flat, None, prepared)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", help="names to train, with commas between them")
  parser.add_argument("--curves", action="store_true", help="record curves, too")
  given = parser.parse_args()
  only = given.only
  known = {s.name: s.config.split(":")[0] for s in records() if s.family == "image"}
  wanted = set(known if only is None else only.split(","))
  table, left = [], []
  for name in (*FIRST, *(name for name in known if name not in FIRST)):
    if name in wanted or (run_folder(name) / "untrained.json").exists():
      table += lines(name, known[name])
      print(*table[-2:], sep="\n", flush=True)
      if given.curves and name in wanted:
        record(name, known[name])
    else:
      left.append(name)
  table.append(kept(Path("runs/pixels.json"), pixels).line("raw pixels"))
  if left:
    table.append(f"\nNot measured yet: {', '.join(left)}.")
  TABLE.parent.mkdir(exist_ok=True)
  TABLE.write_text("\n".join([HEAD, *table]) + "\n")


HEAD = """\
# Image systems, side by side

Each trained on Fashion-MNIST (60,000 images of 28x28 pixels) by
`configs/image/SYSTEM.py:small`, for at most eight minutes of one CPU core: two at a
time on two cores, four minutes a system. Below each, the same encoder untrained. The
features are means over an image's patches. Accuracies on 10,000 other images, in
percent: `plain` is a linear probe stopped after 30 steps of L-BFGS, `linear` the same
converged, `knn` a vote of 20 neighbors. The gain is that of `plain` over the untrained
encoder. The ranks are effective ranks, with their share of the width: `rank` of the
features about their mean (arXiv:2210.02885), and `covariance` of their covariance,
whose large directions count for more; a collapsed encoder has ranks near 1. Minutes are
those of all cores together, compilation included.

    python benchmarks/image_family.py

| encoder | plain | linear | knn | gain | rank | covariance | minutes |
|---|---|---|---|---|---|---|---|"""


if __name__ == "__main__":
  main()
