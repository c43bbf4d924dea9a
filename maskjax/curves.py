"""Expected curves: metrics of earlier runs of a config, to compare a new run with.

Beside `configs/image/mae.py` lies `mae.curves.json`: mean and std, over several seeds,
of the metrics that runs of its settings wrote. A new run is compared with them value
by value.
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

# The metrics that have curves, where a run writes them.
NAMES = (
  "train/loss",
  "eval/loss",
  "eval/knn",
  "eval/linear",
  "eval/bits_per_character",
)

# Half the width of a band in stds between seeds, and its least share of the mean.
WIDTH = 5.0
LEAST = 0.01

# Keys that may differ from the config of the recorded runs.
_FREE = ("data.train", "data.test", "seed")

Curve = dict[str, dict[str, list[Any]]]
Run = Mapping[str, Mapping[int, float]]  # by name, values by step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """A value of a run and the band in which it was expected.

  Attributes:
    name: of the metric, for example `train/loss`.
    step: the step after which it was written.
    found: the run's value.
    lowest: the lower end of the band.
    highest: the upper end of the band.
  """

  name: str
  step: int
  found: float
  lowest: float
  highest: float

  @property
  def is_inside(self) -> bool:
    """Whether the value is in the band."""
    return self.lowest <= self.found <= self.highest


def record(spec: str, config: ConfigDict, *, seeds: int = 4) -> Path:
  """Runs a config under several seeds, and stores their curve.

  Args:
    spec: `FILE[:SETTING]`, the setting that the curve belongs to.
    config: is run under the seeds 0, 1, ... in place of its own.
    seeds: number of runs, at least 2.

  Returns:
    The path of the file with the curve.

  Raises:
    UserError: fewer than 2 seeds.
  """
  if seeds < 2:
    raise UserError(f"seeds={seeds}: expected at least 2, to see how much they differ")
  runs = []
  for seed in range(seeds):
    again = config.copy_and_resolve_references()
    again.seed = seed
    runs.append(_run(again))
  return store(spec, config, runs)


def store(spec: str, config: ConfigDict, runs: Sequence[Run]) -> Path:
  """Stores the curve of runs of a config; it replaces an earlier curve.

  Args:
    spec: `FILE[:SETTING]`, the setting that the curve belongs to.
    config: of the runs, which differ in their seeds.
    runs: the metrics of each, see `written`; at least two.

  Returns:
    The path of the file with the curve.
  """
  file, setting = _curves_file(spec)
  stored = _read(file)
  stored[setting] = {
    "config": configs.plain(with_vocabulary(config, whole=True)[0]),
    "curve": _curve(runs),
  }
  file.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
  return file


def check(spec: str, config: ConfigDict) -> list[Point]:
  """Runs a config, and compares its metrics with the stored curve.

  Args:
    spec: `FILE[:SETTING]`, the setting that the curve belongs to.
    config: is run; its seed and its data's paths may differ from the recorded ones.

  Returns:
    A point for each value of the curve.

  Raises:
    UserError: there is no curve, or it is of another config; names the keys that
      differ.
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
    spec: `FILE[:SETTING]`, whose curve it is.
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
  """The last values of the recorded runs of a config file.

  Args:
    path: of the config file.

  Returns:
    The recorded setting, `small` where there are several, and by name the mean and std
    of the last values; an empty name and dict where no curve is recorded.
  """
  file, _ = _curves_file(path)
  stored = _read(file)
  if not stored:
    return "", {}
  setting = "small" if "small" in stored else min(stored)
  curve = stored[setting]["curve"]
  return setting, {
    name: (columns["mean"][-1], columns["std"][-1]) for name, columns in curve.items()
  }


def compare(curve: Curve, run: Run) -> Iterator[Point]:
  """Compares each value of a curve with that of a run.

  Args:
    curve: by name, `step`, `mean` and `std` of the recorded runs.
    run: by name, values by step.

  Yields:
    A point for each value of the curve.

  Raises:
    UserError: the run has not written a value of the curve; names metric and step.
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
  """Formats the comparison as a table, a line for each value.

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
  """Reads the metrics of `NAMES` that a run wrote.

  Args:
    workdir: a local workdir.

  Returns:
    By name, values by step.
  """
  lines = metrics.read_json_lines(Path(workdir) / workdirs.METRICS)
  return {
    name: {line["step"]: line[name] for line in lines if name in line} for name in NAMES
  }


def _run(config: ConfigDict) -> Run:
  """Trains in a temporary workdir, and returns its metrics."""
  with tempfile.TemporaryDirectory() as workdir:
    train(config, workdir)
    return written(workdir)


def _curve(runs: Sequence[Run]) -> Curve:
  """The mean and std of each value over the runs.

  The std at one step, of a few runs, is itself uncertain: it is taken to be the same
  share of the mean at all steps, the root mean square of the shares.
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


def _curves_file(spec: str) -> tuple[Path, str]:
  """The file that holds the curves of a config file, and the name of the setting."""
  path, _, setting = spec.partition(":")
  return configs.find_file(path).with_suffix(".curves.json"), setting


def _read(file: Path) -> dict[str, Any]:
  """Reads the curves of a config file by setting; none where there is no file."""
  return migrate_curves(json.loads(file.read_text())) if file.exists() else {}


def _stored(spec: str) -> Any:
  file, setting = _curves_file(spec)
  stored = _read(file)
  if setting not in stored:
    there = ", ".join(sorted(stored)) or "none"
    raise UserError(
      f"{file.name} has no curve of {setting!r}: expected one of: {there}; "
      "maskjax check --record makes one"
    )
  return stored[setting]
