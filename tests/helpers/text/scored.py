"""Rows with given scores, and many draws of a sampler."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.text.rows import batch, row

BATCH = batch(count=4)
KEYS = jax.random.split(jax.random.key(0), 2000)


def with_scores(scores, number=0):
  column = jnp.tile(jnp.asarray(scores, jnp.float32), (4, 1))
  return row({**BATCH, "score": column}, number)


def draw(sampler, text, count, **options):
  one = jax.jit(jax.vmap(lambda key: sampler(key, text, jnp.int32(count), **options)))
  return np.asarray(one(KEYS))
