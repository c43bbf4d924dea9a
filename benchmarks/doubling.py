"""What a doubling of SparK's decoder costs beside Flax's transposed convolution.

  pip install . && python benchmarks/doubling.py

128 images in float32, output and gradients, in turns; ratios are of medians. `taskset
-c 0` in front takes one core.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from flax import linen as nn

from maskjax.models.convolution import Upsample

TURNS = 9


def gradients(module, x):
  """A compiled function, and what it takes."""
  params = module.init(jax.random.key(0), x)

  def total(params, x):
    return jnp.square(module.apply(params, x)).sum()

  return jax.jit(jax.grad(total, argnums=(0, 1))).lower(params, x).compile(), params


def main():
  for side, width in ((7, 32), (14, 16), (28, 8)):
    x = jax.random.normal(jax.random.key(0), (128, side, side, width))
    flax = nn.ConvTranspose(width, (4, 4), (2, 2), padding="SAME")
    seconds: dict[str, list[float]] = {"doubling": [], "flax": []}
    compiled = {
      name: gradients(module, x)
      for name, module in (("doubling", Upsample(width)), ("flax", flax))
    }
    for _ in range(TURNS):
      for name, (run, params) in compiled.items():
        start = time.perf_counter()
        jax.block_until_ready(run(params, x))
        seconds[name].append(time.perf_counter() - start)
    own, theirs = (statistics.median(seconds[name]) for name in ("doubling", "flax"))
    print(
      f"{side}x{side}x{width} to {2 * side}x{2 * side}: doubling {1e3 * own:.0f} ms, "
      f"flax {1e3 * theirs:.0f} ms, {theirs / own:.1f} times as long"
    )


if __name__ == "__main__":
  main()
