"""Training steps as benchmarks take them: compiled, each waited for."""

import functools

import jax

from maskjax.training import init_state, train_step


def make_step(objective, optimizer, batch):
  """Makes a function that takes one more step on the same batch, and gives its loss."""
  key = jax.random.key(0)
  make = functools.partial(init_state, objective, optimizer)
  state = jax.jit(make)(batch, key)
  advance = jax.jit(
    functools.partial(
      train_step, objective=objective, optimizer=optimizer, key=key, num_steps=1000
    ),
    donate_argnums=0,
  )

  def step():
    nonlocal state
    state, metrics = advance(state, batch)
    jax.block_until_ready(state)
    return float(metrics["loss"].value())

  return step
