"""What CrossMAE's decoder costs beside MAE's, and their steps in turns.

  pip install . && python benchmarks/crossmae_decoder.py

224 pixels, patches of 16, float32, AdamW; 75 % masked. MAE's decoder has 8 blocks and
CrossMAE's 12, as in their papers; CrossMAE predicts a quarter of the masked patches, or
of all, its default. Operations are those of the compiled decoder and its gradient.
Steps are taken in turns, in one process, so that a noisy machine disturbs them alike;
ratios are of the median step. `--turns 0` takes none.

Its decoder takes 31 % of the operations of MAE's where it predicts a quarter of the
masked patches, 38 % where it predicts a quarter of all; on two CPU cores its steps are
2.06 and 2.12 times as fast as MAE's (ViT-S, batches of 16, `--turns 4`).
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
from steps import make_step

import maskjax as mj

# Of the decoders, by the size of the encoder.
SHAPES = {"S": dict(width=256, heads=8), "B": dict(width=512, heads=16)}


def candidates(size):
  def cross(ratio):
    return mj.systems.crossmae(
      encoder=size, decoder=dict(depth=12, **SHAPES[size]), prediction_ratio=ratio
    )

  mae = mj.systems.mae(encoder=size, decoder=dict(depth=8, **SHAPES[size]))
  return {
    "mae": mae,
    "crossmae, 1/4 of masked": cross(0.75 / 4),
    "crossmae, 1/4 of all": cross(1 / 4),
  }


def decoder_flops(objective, batch_size):
  """Operations of the compiled decoder and its gradient."""
  batch = objective.batch_shapes(batch_size)

  def inputs(key, batch):
    mask = objective.mask(batch, mj.objectives.Step(key))
    count = objective.num_predicted or objective.masking.num_masked
    mask = mask.subset(jax.random.split(key, batch_size), count)
    params = objective.init(key, batch).params
    # MAE's decoder reads the last block, CrossMAE's all.
    crosses = objective.num_predicted is not None
    encode = "every_block" if crosses else "__call__"
    encoded = objective.model.encoder.apply(
      {"params": params["encoder"]},
      objective.patches(batch),
      mask,
      method=encode,
      **({"embedded_too": True} if crosses else {}),
    )
    return params["decoder"], encoded, mask

  def total(params, encoded, mask):
    predictions = objective.model.decoder.apply(
      {"params": params}, encoded, mask, False
    )
    return jnp.square(predictions).sum()

  shapes = jax.eval_shape(inputs, jax.random.key(0), batch)
  compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes).compile()
  return compiled.cost_analysis()["flops"]


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--encoder", choices=SHAPES, default="S")
  parser.add_argument("--batch-size", type=int, default=16)
  parser.add_argument("--turns", type=int, default=10)
  options = parser.parse_args()
  objectives = candidates(options.encoder)
  flops = {n: decoder_flops(o, options.batch_size) for n, o in objectives.items()}
  for name, count in flops.items():
    share = count / flops["mae"]
    print(f"{name:<24} decoder {count / 1e9:6.1f} GFLOP {share:5.0%} of MAE's")
  if not options.turns:
    return
  optimizer = mj.training.adamw(learning_rate=1e-4, num_steps=1000)
  pixels = jax.random.normal(jax.random.key(0), (options.batch_size, 224, 224, 3))
  batch = {"image": pixels}
  steps = {n: make_step(o, optimizer, batch) for n, o in objectives.items()}
  seconds = {name: [] for name in steps}
  for turn in range(options.turns + 2):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      if turn >= 2:  # the first ones compile and warm up
        seconds[name].append(time.perf_counter() - start)
  median = {name: statistics.median(times) for name, times in seconds.items()}
  for name, value in median.items():
    rate, faster = options.batch_size / value, median["mae"] / value
    print(f"{name:<24} {rate:6.2f} images/s {faster:6.2f} times MAE's")


if __name__ == "__main__":
  main()
