"""Finetuned accuracies on Fashion-MNIST, for one system of each kind of encoder.

    python benchmarks/finetuning.py [--kinds swin ...] [--steps 2]

Pretrains each system by its small setting, unless `runs/` has that run, finetunes it by
`configs/image/finetune.py`, and trains the same classifier from scratch; all with one
budget of images. Prints a table of accuracies on held-out images. From scratch all
blocks learn at the full rate: layer decay is for what is pretrained.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

# By kind of encoder, the pretraining setting and that of the classifier.
KINDS = {
  "sincos": ("mae.py:small", "small"),
  "relative": ("ccvit.py:small", "small_relative"),
  "learned": ("maskfeat.py:small", "small_learned"),
  "swin": ("simmim.py:small_swin", "small_swin"),
  "resnet": ("spark.py:small", "small_resnet"),
  "convnext": ("spark.py:small_convnext", "small_convnext"),
}


def train(spec: str, folder: Path, *more: str) -> None:
  """Trains a config; goes on where a run is already."""
  command = [sys.executable, "-m", "maskjax.main", "train"]
  command += ["--config", f"configs/image/{spec}", "--workdir", str(folder), *more]
  subprocess.run(command, check=True)


def accuracy(folder: Path) -> float:
  """The last one on held-out images."""
  lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
  return [line["eval/accuracy"] for line in lines if "eval/accuracy" in line][-1]


def main() -> None:
  """Makes the runs, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
  parser.add_argument("--runs", type=Path, default=Path("runs"))
  parser.add_argument("--steps", type=int, default=0, help="of all runs, for a trial")
  given = parser.parse_args()
  trial = []
  if given.steps:
    trial = [f"--config.num_steps={given.steps}", "--config.optimizer.warmup_steps=0"]
  print(f"{'encoder':10} {'pretrained by':24} {'finetuned':>9} {'from scratch':>12}")
  for kind in given.kinds:
    spec, setting = KINDS[kind]
    pretrained = given.runs / spec.replace(".py:", "_")
    train(spec, pretrained, "--config.eval.probes=()", *trial)
    scores = []
    for name, more in (
      ("finetuned", [f"--config.init_from={pretrained}"]),
      ("scratch", ["--config.optimizer.layer_decay=1.0"]),
    ):
      folder = given.runs / f"{name}_{kind}"
      train(f"finetune.py:{setting}", folder, *more, *trial)
      scores.append(accuracy(folder))
    print(f"{kind:10} {spec:24} {scores[0]:9.2%} {scores[1]:12.2%}", flush=True)


if __name__ == "__main__":
  main()
