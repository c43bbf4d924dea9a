"""Trains the small setting of every text system, and compares what they fill in.

  python benchmarks/text_family.py

writes docs/results/text.md, and runs/SYSTEM_small. Each system has the same budget,
eight minutes of a CPU core; `taskset -c 0` keeps a run on one. Runs that are finished
are not done again, so that the table can be made piece by piece, with `--only`.

`--curves` trains each under a second seed, and stores what to expect of the settings
beside their configs, for `maskjax check`.
"""

import argparse
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from family import run_folder, train

from maskjax import config as configs
from maskjax import curves, experiment, keys, metrics, objectives, resolve, workdir
from maskjax.masking import words
from maskjax.objectives.text import HELD_OUT_RATIO
from maskjax.systems import records
from maskjax.training import init_state, optimizers, train_step

TABLE = Path(__file__).parent.parent / "docs/results/text.md"
BASE = "configs/text/bert.py:small"

HEAD = """\
# What text systems learn in a few minutes

Made by `python benchmarks/text_family.py` on a CPU of two cores. Each system's `small`
setting learned from 332,000 characters of Python's own reference; of 44,000 that were
held out, 15 % of the tokens were masked, the same for all, and filled in. Of a masked
token the two tables of counts are given, the one nothing, the other its left neighbor;
counts that are added to those of the training text are the best of several on the
held-out text.

Bits are those of the masked tokens, by the characters that these stand for. Operations
are those of XLA's cost analysis of the compiled training step, and of the whole run.
Minutes are of one core. `bert` is the base of all; `three_ml` and `mae_lm` keep mask
tokens out of most blocks, to reach its bits in fewer operations. They mask 50 % and
30 % in training, where `bert` masks 15 %: a higher rate helps by itself here, as
`mask40` shows. `token_substitution` is SLM, the one of its paper's three objectives
that predicts tokens. The vocabulary has 512 tokens, of which most words take several:
what papers do with words, `spanbert`, `time_variant_masking`, `dupmae` and
`bow_pretrain` do with tokens here.

| system | right | bits per character | GFLOP a step | TFLOP in all | minutes |
|---|---|---|---|---|---|"""


def hidden_tokens(config: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """The masked tokens of the held-out text, their left neighbors and characters."""
  prepared = experiment.prepare(config)
  key = keys.named(prepared.key, "eval")  # as held-out losses are taken
  with prepared.test(0) as batches:
    for batch in batches:
      batch = {name: jnp.asarray(column) for name, column in batch.items()}
      mask = prepared.objective.masking.draw(
        batch, key, ratio=HELD_OUT_RATIO, highest=HELD_OUT_RATIO, sampler=words.tokens
      )
      masked = mask.masked
      masked = np.asarray(masked & batch["valid"][:, None])
      token, characters = (np.asarray(batch[n]) for n in ("token", "characters"))
      before = np.roll(token, 1, axis=1)
      yield token[masked], before[masked], characters[masked]


def baselines() -> list[str]:
  """Tables of counts: of tokens, and of pairs of neighbors."""
  config = configs.load(BASE).copy_and_resolve_references()
  prepared = experiment.prepare(config)
  rows = prepared.train.source.columns
  size = prepared.config.objective.vocab_size
  ones, pairs = np.zeros(size), np.zeros((size, size))
  is_word = rows["word"] >= 0
  np.add.at(ones, rows["token"][is_word], 1)
  after = is_word[:, 1:]
  np.add.at(pairs, (rows["token"][:, :-1][after], rows["token"][:, 1:][after]), 1)
  parts = zip(*hidden_tokens(config), strict=True)
  token, before, characters = (np.concatenate(part) for part in parts)

  def line(name: str, right: np.ndarray, bits: float) -> str:
    return f"| {name} | {right.mean():.1%} | {bits / characters.sum():.3f} | | | |"

  single = (ones + 1) / (ones + 1).sum()
  lines = [line("unigrams", single.argmax() == token, -np.log2(single[token]).sum())]
  best = None
  for added in (0.5, 1, 2, 5, 10, 20):
    total = pairs.sum(axis=1, keepdims=True) + added
    table = (pairs + added * single) / total
    bits = -np.log2(table[before, token]).sum()
    if best is None or bits < best[0]:
      best = bits, table[before].argmax(axis=1) == token
  assert best is not None
  return [*lines, line("bigrams", best[1], best[0])]


def step_flops(config: Any) -> float:
  """Operations of a compiled training step."""
  objective = resolve.build(objectives, config.objective)
  optimizer = resolve.build(optimizers, config.optimizer, num_steps=config.num_steps)
  shapes = objective.batch_shapes(config.batch_size)
  key = jax.random.key(0)
  make = functools.partial(init_state, objective, optimizer)
  state = jax.eval_shape(make, shapes, key)
  step = functools.partial(
    train_step,
    objective=objective,
    optimizer=optimizer,
    key=key,
    num_steps=config.num_steps,
  )
  return jax.jit(step).lower(state, shapes).compile().cost_analysis()["flops"]


def line(name: str, spec: str) -> str:
  """What a system's run learned."""
  folder = run_folder(name)
  minutes = train(spec, folder)
  *_, last = (
    row
    for row in metrics.read_json_lines(folder / workdir.METRICS)
    if "eval/accuracy" in row
  )
  config = workdir.read_config(folder)
  kept = folder / "flops.json"
  if not kept.exists():
    kept.write_text(json.dumps(step_flops(config)))
  flops = json.loads(kept.read_text())
  right, bits = last["eval/accuracy"], last["eval/bits_per_character"]
  spent = f"{flops / 1e9:.1f} | {flops * config.num_steps / 1e12:.1f} | {minutes:.1f}"
  return f"| {name} | {right:.1%} | {bits:.3f} | {spent} |"


def record(name: str, spec: str) -> None:
  """Stores the curve of a system's setting, of runs under two seeds."""
  runs = []
  for seed in (0, 1):
    train(spec, run_folder(name, seed), seed)
    runs.append(curves.written(run_folder(name, seed)))
  print(f"recorded: {curves.store(spec, configs.load(spec), runs)}", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", help="names to train, with commas between them")
  parser.add_argument("--curves", action="store_true", help="record curves, too")
  given = parser.parse_args()
  known = {"bert": BASE}
  known |= {s.name: f"{s.config}:small" for s in records() if s.family == "text"}
  wanted = list(known) if given.only is None else given.only.split(",")
  for name in wanted:
    print(line(name, known[name]), flush=True)
    if given.curves:
      record(name, known[name])
  if given.only is None:
    lines = [line(name, spec) for name, spec in known.items()]
    TABLE.write_text("\n".join([HEAD, *baselines(), *lines]) + "\n")
    print(f"written: {TABLE}")


if __name__ == "__main__":
  main()
