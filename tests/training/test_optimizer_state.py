"""An optimizer whose state is in bfloat16."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.running import tiny_config

from maskjax import data, objectives, resolve, sharding
from maskjax.training import adamw, fit
from maskjax.training.bfloat16_state import round_at_random


def test_rounding_at_random_keeps_the_mean():
  """Each number goes to either neighbor as often as it is near to it."""
  rng = np.random.default_rng(0)
  x = np.float32(rng.normal(size=200) * 10.0 ** rng.integers(-30, 30, 200))
  draws = 4000
  tiled = jnp.broadcast_to(x, (draws, len(x)))
  rounded = np.float64(jax.jit(round_at_random)(jax.random.key(0), tiled))
  bits = x.view(np.uint32)
  below = (bits & 0xFFFF0000).view(np.float32).astype(np.float64)
  above = ((bits & 0xFFFF0000) + 0x10000).view(np.float32).astype(np.float64)
  assert ((rounded == below) | (rounded == above)).all()
  share = (np.float64(x) - below) / (above - below)
  # Hoeffding's bound over all 200, which one seed in 10^9 passes.
  bound = math.sqrt(math.log(2 * 200 * 1e9) / (2 * draws))
  assert np.abs((rounded == above).mean(axis=0) - share).max() < bound


def test_rounding_leaves_what_bfloat16_holds():
  x = jnp.array([0.0, -0.0, 1.0, -3.0, 2.0**-126, jnp.inf, -jnp.inf, jnp.nan])
  rounded = round_at_random(jax.random.key(0), x)
  assert rounded.dtype == jnp.bfloat16
  np.testing.assert_array_equal(rounded.astype(jnp.float32), x)
  assert not np.isnan(
    np.float32(round_at_random(jax.random.key(1), jnp.full(9, 3e38)))
  ).any()


def second_moment(optimizer, steps):
  """The second moment of 4000 parameters after steps of the gradient 1, then 2."""
  params = {"kernel": jnp.zeros(4000)}
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  for step in range(steps):
    grads = {"kernel": jnp.full(4000, 1.0 if step < steps // 2 else 2.0)}
    _, state = update(grads, state, params)
  return state, np.float64(optax.tree.get(state, "nu")["kernel"])


def test_second_moment_in_bfloat16_follows_the_one_in_float32():
  keywords = {"learning_rate": 0.1, "num_steps": 600, "b2": 0.999}
  _, expected = second_moment(adamw(**keywords), 400)
  state, found = second_moment(adamw(**keywords, state_dtype="bfloat16"), 400)
  kinds = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim}
  assert kinds == {jnp.dtype(jnp.bfloat16)}
  # A step rounds by at most 2^-7 of the moment, at random: 400 add up to 0.16 of it
  # at worst in one parameter, and in the mean of 4000 to 64 times less.
  assert found.mean() == pytest.approx(expected[0], rel=0.01)
  assert found.std() < 0.16 * expected[0]
  # What rounding to nearest would have given: once (1 - b2) of the square is less
  # than half a step of bfloat16, the moment stays where it is.
  naive = np.float32(0)
  for step in range(400):
    square = 1.0 if step < 200 else 4.0
    moment = jnp.bfloat16(0.999 * float(naive) + 0.001 * square)
    naive = np.float32(moment)
  assert abs(naive / expected[0] - 1) > 0.1


def test_bfloat16_state_gives_the_same_numbers_again():
  runs = [
    second_moment(adamw(learning_rate=0.1, num_steps=9, state_dtype="bfloat16"), 4)[1]
    for _ in range(2)
  ]
  np.testing.assert_array_equal(*runs)
  assert len(np.unique(runs[0])) > 1


def test_digits_train_as_well_with_bfloat16_state():
  config = tiny_config()
  source = data.digits(split="train")
  transforms = [data.to_float, functools.partial(data.normalize, mean=0.3, std=0.37)]
  losses = {}
  for dtype in ("float32", "bfloat16"):
    objective = resolve.build(objectives, config.objective)
    seen = []

    class Record:
      def write(self, step, values, seen=seen):
        seen.append(values["train/loss"])

      def advance(self, step):
        pass

    batches = data.Pipeline(
      source=source, batch_size=64, transforms=transforms, num_threads=0
    )
    fit(
      objective,
      batches,
      optimizer=adamw(
        learning_rate=5e-3, num_steps=60, warmup_steps=15, state_dtype=dtype
      ),
      num_steps=60,
      mesh=sharding.make_mesh(devices=jax.devices()[:1]),
      writer=Record(),
      log_every=15,
    )
    losses[dtype] = np.array(seen)
  assert losses["float32"][-1] < 0.75 * losses["float32"][0]
  np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)
