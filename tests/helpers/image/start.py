"""Two steps of the small settings of systems, in a process of their own.

  python start.py IMAGES RESULTS NAME ...

IMAGES holds files as Fashion-MNIST's; RESULTS gets one JSON object by name: the losses,
or what went wrong.
"""

import json
import sys
import tempfile
import traceback
from pathlib import Path

from maskjax import config as configs
from maskjax import experiment, metrics
from maskjax.systems import records
from maskjax.training import fit


def main(root: str, results: str, *names: str) -> None:
  found = {}
  for system in records():
    if system.name in names:
      try:
        found[system.name] = losses(f"{system.config}:small", root)
      except Exception:
        found[system.name] = traceback.format_exc()
  Path(results).write_text(json.dumps(found))


def losses(spec: str, root: str) -> list[float]:
  config = configs.load(spec)
  config.num_steps, config.batch_size, config.optimizer.warmup_steps = 2, 16, 0
  for data in (config.data.train, config.data.test):
    data.root = root
  random_teachers(config.objective)
  prepared = experiment.prepare(config)
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "metrics.jsonl"
    fit(
      prepared.objective,
      prepared.train,
      optimizer=prepared.optimizer,
      num_steps=2,
      log_every=1,
      writer=metrics.Writers([metrics.JsonLines(file)]),
    )
    return [line["train/loss"] for line in metrics.read_json_lines(file)]


def random_teachers(objective: configs.ConfigDict) -> None:
  """Leaves the teachers of an objective as they are made."""
  for key, value in objective.items():
    if isinstance(value, configs.ConfigDict):
      random_teachers(value)
    elif key == "workdir":
      objective[key] = ""


if __name__ == "__main__":
  main(*sys.argv[1:])
