"""A tiny tokenizer, and what it cuts: images of 6 x 6 pixels in 3 x 3 patches."""

import functools

import jax
import numpy as np

import maskjax as mj
from maskjax.training.step import init_state, train_step

KEY = jax.random.key(0)
SMALL = {"width": 8, "depth": 1, "heads": 2}
IMAGES = {"image_size": 6, "channels": 1, "patch_size": 2}
# Networks this narrow learn nothing from weights as small as those of wide ones.
DRAWN = {"initialization": "xavier"}
MAE = {"name": "mae", **IMAGES, **DRAWN, "encoder": SMALL, "decoder": SMALL}
VQKD = {
  **IMAGES,
  **DRAWN,
  "encoder": SMALL,
  "decoder": {"depth": 1},
  "num_codes": 6,
  "code_dim": 4,
  "teacher": {"name": "frozen", "objective": MAE},
}
TOKENIZER = {"name": "frozen", "objective": {"name": "vqkd", **VQKD}}


def make_batch(count=4):
  """Images of stripes, each in a direction of its own."""
  rng = np.random.default_rng(0)
  position = np.stack(np.meshgrid(np.arange(6), np.arange(6), indexing="ij"), axis=-1)
  phase = position @ rng.normal(size=(2, count)) + rng.normal(size=count)
  images = np.sin(phase).transpose(2, 0, 1)[..., None].astype(np.float32)
  return {"image": images, "index": np.arange(count), "valid": np.ones(count, bool)}


def train(objective, batch, *, steps, learning_rate):
  """Trains on one batch: the loss of each step, the first state and the last."""
  optimizer = mj.training.adamw(learning_rate=learning_rate, num_steps=2 * steps)
  parts = {"objective": objective, "optimizer": optimizer, "key": KEY}
  first = jax.jit(functools.partial(init_state, **parts))(batch=batch)
  step = jax.jit(functools.partial(train_step, **parts, num_steps=steps))
  state, values = first, []
  for _ in range(steps):
    state, metrics = step(state, batch)
    values.append(float(metrics["loss"].value()))
  return values, first, state
