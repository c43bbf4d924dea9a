"""Expected curves: what the runs of a config wrote, for fresh runs to be held against.

Beside `configs/image/mae.py` lies `mae.curves.json`, with what runs of its settings
under several seeds wrote. A fresh run is compared with it, number by number.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import metrics
from maskjax import workdir as workdirs
from maskjax.errors import UserError
from maskjax.experiment import with_vocabulary
from maskjax.migrations import migrate, migrate_curves
from maskjax.runs import train

# What a curve is of, where a run writes it.
NAMES = (
  "train/loss",
  "eval/loss",
  "eval/knn",
  "eval/linear",
  "eval/bits_per_character",
)

# Half a band's width in standard deviations between seeds, and at least, by its middle.
WIDTH = 5.0
LEAST = 0.01

# What may differ from the runs that the curve is of.
_FREE = ("data.train", "data.test", "seed")

Curve = dict[str, dict[str, list[Any]]]
Run = Mapping[str, Mapping[int, float]]  # by name, numbers by step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """A number of a run beside what was expected of it.

  Attributes:
    name: of the number, for example `train/loss`.
    step: the step after which it was written.
    found: what the run wrote.
    lowest: the lower end of the band.
    highest: its upper end.
  """

  name: str
  step: int
  found: float
  lowest: float
  highest: float

  @property
  def is_inside(self) -> bool:
    """Whether the number is in the band."""
    return self.lowest <= self.found <= self.highest


def record(spec: str, config: ConfigDict, *, seeds: int = 4) -> Path:
  """Runs a config under several seeds, and stores what they wrote.

  Args:
    spec: `FILE[:ARG]`, to whose curve the runs are written.
    config: what is run.
    seeds: number of runs.

  Returns:
    The file.
  """
  if seeds < 2:
    raise UserError(f"seeds={seeds}: expected at least 2, to know how far they differ")
  runs = []
  for seed in range(seeds):
    again = config.copy_and_resolve_references()
    again.seed = seed
    runs.append(_run(again))
  return store(spec, config, runs)


def store(spec: str, config: ConfigDict, runs: Sequence[Run]) -> Path:
  """Stores what runs of a config wrote, replacing the curve that there was.

  Args:
    spec: `FILE[:ARG]`, whose curve it becomes.
    config: what the runs were of, but for their seeds.
    runs: what each wrote, see `written`; at least two.

  Returns:
    The file.
  """
  file, setting = _place(spec)
  stored = _read(file)
  stored[setting] = {
    "config": configs.plain(with_vocabulary(config, whole=True)[0]),
    "curve": _curve(runs),
  }
  file.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
  return file


def check(spec: str, config: ConfigDict) -> list[Point]:
  """Runs a config, and compares what it wrote with the stored curve.

  Args:
    spec: `FILE[:ARG]`, whose curve it is.
    config: what is run; may have another seed and other data.

  Raises:
    UserError: there is no curve, or its config is another; names the keys that differ.
  """
  stored = _stored(spec)
  if found := changes(spec, config):
    raise UserError(
      f"the curve of {spec} is of another config: {'; '.join(found)}; expected the "
      "config as it was recorded, or a new curve: maskjax check --record"
    )
  return list(compare(stored["curve"], _run(config)))


def changes(spec: str, config: ConfigDict) -> list[str]:
  """The keys in which a config differs from the one that a curve is of.

  Args:
    spec: `FILE[:ARG]`, whose curve it is.
    config: may have another seed and other data.

  Returns:
    Texts like `optimizer.learning_rate: 0.1, now 0.2`.

  Raises:
    UserError: there is no such curve.
  """
  whole, _ = with_vocabulary(config, whole=True)
  now = migrate(configs.plain(whole))
  found = configs.differences(_stored(spec)["config"], now)
  return [text for text in found if not text.startswith(_FREE)]


def ends(path: str) -> tuple[str, dict[str, tuple[float, float]]]:
  """What the recorded runs of a config file ended with.

  Args:
    path: of the config file.

  Returns:
    The setting that was recorded, `small` where there are several, and by name the
    mean and the standard deviation of the last numbers; nothing where none was.
  """
  file, _ = _place(path)
  stored = _read(file)
  if not stored:
    return "", {}
  setting = "small" if "small" in stored else min(stored)
  curve = stored[setting]["curve"]
  return setting, {
    name: (columns["mean"][-1], columns["std"][-1]) for name, columns in curve.items()
  }


def compare(curve: Curve, run: Run) -> Iterator[Point]:
  """Puts each number of a curve beside that of a run.

  Args:
    curve: by name, `step`, `mean` and `std` of the recorded runs.
    run: by name, numbers by step.

  Raises:
    UserError: the run has not written a number of the curve.
  """
  for name, columns in curve.items():
    for step, mean, std in zip(
      columns["step"], columns["mean"], columns["std"], strict=True
    ):
      if step not in run.get(name, {}):
        raise UserError(f"the run has written no {name} at step {step:g}")
      half = max(WIDTH * std, LEAST * abs(mean))
      yield Point(
        name=name,
        step=int(step),
        found=run[name][int(step)],
        lowest=mean - half,
        highest=mean + half,
      )


def table(points: Sequence[Point]) -> str:
  """Writes the comparison for people, a line a number.

  Example:
    >>> point = Point(name="train/loss", step=10, found=2.0, lowest=0.9, highest=1.1)
    >>> print(table([point]))
    number        step   found  expected
    train/loss      10   2.000  0.900 to 1.100  outside
  """
  width = max(len(point.name) for point in points)
  lines = [f"{'number':<{width}}{'step':>8}{'found':>8}  expected"]
  for point in points:
    lines.append(
      f"{point.name:<{width}}{point.step:>8}{point.found:>8.3f}  "
      f"{point.lowest:.3f} to {point.highest:.3f}"
      + ("" if point.is_inside else "  outside")
    )
  return "\n".join(lines)


def written(workdir: str | Path) -> Run:
  """What a run wrote of `NAMES`."""
  lines = metrics.read_json_lines(Path(workdir) / workdirs.METRICS)
  return {
    name: {line["step"]: line[name] for line in lines if name in line} for name in NAMES
  }


def _run(config: ConfigDict) -> Run:
  """Trains in a workdir of its own."""
  with tempfile.TemporaryDirectory() as workdir:
    train(config, workdir)
    return written(workdir)


def _curve(runs: Sequence[Run]) -> Curve:
  """Mean and standard deviation of each number over the runs.

  The std at a step, of a few runs, is itself uncertain: it is taken to be the
  same share of the mean at all steps, the root mean square of the shares.
  """
  curve: Curve = {}
  for name in NAMES:
    steps = sorted(runs[0][name])
    if not steps:
      continue
    values = np.array([[run[name][step] for step in steps] for run in runs])
    mean = values.mean(axis=0)
    share = np.sqrt(np.square(values.std(axis=0, ddof=1) / mean).mean())
    curve[name] = {
      "step": steps,
      "mean": [float(f"{x:.5g}") for x in mean],
      "std": [float(f"{x:.2g}") for x in share * np.abs(mean)],
    }
  return curve


def _place(spec: str) -> tuple[Path, str]:
  """The file that holds the curves of a config file, and the name of the setting."""
  path, _, setting = spec.partition(":")
  return configs.find_file(path).with_suffix(".curves.json"), setting


def _read(file: Path) -> dict[str, Any]:
  """What a file holds, by setting; nothing where there is no file."""
  return migrate_curves(json.loads(file.read_text())) if file.exists() else {}


def _stored(spec: str) -> Any:
  file, setting = _place(spec)
  stored = _read(file)
  if setting not in stored:
    there = ", ".join(sorted(stored)) or "none"
    raise UserError(
      f"{file.name} has no curve of {setting!r}: expected one of: {there}; "
      "maskjax check --record makes one"
    )
  return stored[setting]
