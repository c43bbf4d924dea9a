"""The small setting of every text system takes steps, and is evaluated."""

import functools
import json

import jax
import numpy as np
import pytest

from maskjax import config as configs
from maskjax import data, experiment, resolve
from maskjax.objectives import Step
from maskjax.systems import records
from maskjax.training import init_state, train_step

SYSTEMS = {s.name: s.config.split(":")[0] for s in records() if s.family == "text"}


@functools.cache
def first_batch(source, batch_size):
  """The first rows of a source, as a config spells it."""
  rows = resolve.build(data.sources, json.loads(source))
  return data.Pipeline(source=rows, batch_size=batch_size)(0).__next__()


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_steps_of_the_small_setting(name):
  config = configs.load(f"{SYSTEMS[name]}:small")
  config = config.copy_and_resolve_references()
  # The test text is shorter, and has what the training text has.
  config.data.train = config.data.test
  objective, optimizer, _ = experiment.build_system(config)
  batch = first_batch(json.dumps(config.data.test.to_dict()), 4)
  key = jax.random.key(0)
  state = jax.jit(functools.partial(init_state, objective, optimizer))(batch, key)
  step = jax.jit(
    functools.partial(
      train_step, objective=objective, optimizer=optimizer, key=key, num_steps=2
    )
  )
  losses = []
  for _ in range(2):
    state, metrics = step(state, batch)
    losses.append(float(metrics["loss"].value()))
  assert np.isfinite(losses).all() and losses[0] != losses[1]
  held_out = jax.jit(objective.evaluate)(state.variables, batch, Step(key))
  assert 0 < held_out.metrics["bits_per_character"].value() < 20
