"""Counts what a training step of BERT, 3ML and MAE-LM computes.

  python benchmarks/text_flops.py

BERT-base shapes: width 768, 12 heads, a vocabulary of 30,522, rows of 512 tokens. Only
`--depth` of the encoder's 12 blocks are compiled, besides the blocks that 3ML (2) and
MAE-LM (4) add to them; the second pair of columns adds what the last of them costs ten
times more. The numbers are those of XLA's cost analysis of the compiled step on this
machine, forward, backward and AdamW, and their ratio to BERT's. They are not seconds.
"""

import argparse
import functools

import jax

import maskjax as mj

SYSTEMS = {
  "mlm, 15 %": dict(name="bert", mask_ratio=0.15),
  "three_ml, 50 %, 80-10-10": dict(name="three_ml"),
  "three_ml, 50 %, all masked": dict(name="three_ml", replaced=(1.0, 0.0)),
  "mae_lm, 15 %": dict(name="mae_lm"),
}


def flops(depth, rows, length, name, **options):
  """Of one compiled training step, nothing of which runs."""
  objective = mj.systems.find(name)(
    vocab_size=30522,
    length=length,
    encoder=dict(size="B", depth=depth),
    **options,
  )
  optimizer = mj.training.adamw(learning_rate=1e-4, num_steps=1000)
  batch, key = objective.batch_shapes(rows), jax.random.key(0)
  make = functools.partial(mj.training.init_state, objective, optimizer)
  state = jax.eval_shape(make, batch, key)
  step = functools.partial(
    mj.training.train_step,
    objective=objective,
    optimizer=optimizer,
    key=key,
    num_steps=1000,
  )
  lowered = jax.jit(step).lower(state, batch)
  return lowered.compile().cost_analysis()["flops"]


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--depth", type=int, default=2)
  parser.add_argument("--rows", type=int, default=4)
  parser.add_argument("--length", type=int, default=512)
  options = parser.parse_args()
  base = None
  for label, system in SYSTEMS.items():
    shape = dict(rows=options.rows, length=options.length)
    found = flops(options.depth, **shape, **system)
    block = found - flops(options.depth - 1, **shape, **system)
    deep = found + (12 - options.depth) * block
    base = base or (found, deep)
    print(
      f"{label:<27} {found:.3e} FLOPs with {options.depth} blocks "
      f"({found / base[0]:.2f})   {deep:.3e} with 12 ({deep / base[1]:.2f})",
      flush=True,
    )


if __name__ == "__main__":
  main()
