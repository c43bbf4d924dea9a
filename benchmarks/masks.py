"""Draws the masks of every sampler over one photograph, and times them.

  pip install '.[test]' && python benchmarks/masks.py [--time]

Writes docs/masks.png: three draws of each sampler of `maskjax.masking.samplers`, then
masks that are informed, here by the std of each patch's pixels where a system
would have a teacher's attention or the predicted loss. With `--time`, also prints what
masks cost as a share of a training step of MAE ViT-S/16: 224 pixels, batch 32,
float32, AdamW, a decoder of 4 layers of width 192.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_image

import maskjax as mj
from maskjax import masking, plots
from maskjax.masking import samplers
from maskjax.systems.image import hpm
from maskjax.systems.image.attmask import masks
from maskjax.tokens import patchify, unpatchify

BATCH, SIZE, PATCH = 32, 224, 16
GRID = (SIZE // PATCH, SIZE // PATCH)
# Three quarters, in whole units of 2x2 tokens.
NUM_HIDDEN = masking.num_masked_in_units(GRID, 2, 0.75)


def photograph():
  """The middle of a photograph: float32 [224, 224, 3] in [0, 1]."""
  record = {"image": load_sample_image("china.jpg")}
  for change in (mj.data.resize, mj.data.center_crop):
    record = change(record, size=SIZE)
  return mj.data.to_float(record)["image"]


def uninformed():
  """For each sampler a function of a key and the image's scores."""

  def sample(sampler, key, scores):
    del scores
    return sampler(key, GRID, NUM_HIDDEN)

  found = {name: getattr(samplers, name) for name in samplers.__all__}
  return {name: functools.partial(sample, part) for name, part in found.items()}


def informed():
  """The same for masks that need scores."""

  def attended(mode, key, scores):
    return masks.attended(key, scores, mode=mode, low=0.3, high=0.5, prob=1.0)

  def hardest(key, scores):
    return hpm.hardest(key, scores, NUM_HIDDEN, jnp.int32(NUM_HIDDEN // 2))

  modes = ("high", "hint", "low")
  return {
    **{f"attended {mode}": functools.partial(attended, mode) for mode in modes},
    "hardest": hardest,
  }


def draw(path, count=3):
  """Writes the picture."""
  image = photograph()
  patches = patchify(jnp.asarray(image)[None], PATCH)
  scores = patches.std(axis=-1)[0]
  keys = jax.random.split(jax.random.key(0), count)
  pictures = {"image": np.repeat(image[None], count, axis=0)}
  for name, sample in {**uninformed(), **informed()}.items():
    masked = jax.vmap(lambda key, sample=sample: sample(key, scores))(keys)
    seen = jnp.where(masked[..., None], 0.5, patches)
    drawn = unpatchify(seen, grid=GRID, patch_size=(PATCH, PATCH))
    pictures[name] = np.asarray(drawn)
  half = {name: stack[:, ::2, ::2] for name, stack in pictures.items()}
  plots.save_png(path, plots.side_by_side(half))


def step_of_mae():
  """A function that takes one training step and waits for it."""
  objective = mj.systems.mae(encoder="S", decoder=dict(width=192, depth=4, heads=3))
  optimizer = mj.training.adamw(learning_rate=1e-4, num_steps=1000)
  batch = {"image": jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))}
  program = mj.training.program(
    objective,
    optimizer,
    batch,
    jax.random.key(0),
    num_steps=1000,
    mesh=mj.sharding.make_mesh(),
  )
  state = program.init(batch, jax.random.key(0))

  def step():
    nonlocal state
    state, _ = program.step(state, batch)
    jax.block_until_ready(state)

  return step


def masks_of(sample):
  """A function that makes the masks of a batch and waits for them."""
  scores = jax.random.uniform(jax.random.key(1), (BATCH, GRID[0] * GRID[1]))
  keys = jax.random.split(jax.random.key(0), BATCH)

  @jax.jit
  def make(keys):
    return masking.Mask.exactly(jax.vmap(sample)(keys, scores), num_masked=NUM_HIDDEN)

  return lambda: jax.block_until_ready(make(keys))


def seconds(function, turns):
  """The median of some calls, after one that compiles."""
  function()
  times = []
  for _ in range(turns):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--path", default="docs/masks.png")
  parser.add_argument("--time", action="store_true")
  parser.add_argument("--turns", type=int, default=10)
  options = parser.parse_args()
  draw(options.path)
  if not options.time:
    return
  step = seconds(step_of_mae(), options.turns)
  print(f"{'step of MAE ViT-S/16':<22}{1000 * step:9.2f} ms")
  for name, sample in {**uninformed(), **informed()}.items():
    masks = seconds(masks_of(sample), 10 * options.turns)
    print(f"{name:<22}{1000 * masks:9.2f} ms {masks / step:8.2%} of the step")


if __name__ == "__main__":
  main()
