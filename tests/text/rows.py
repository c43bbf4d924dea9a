"""Rows of text to test with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data.text import text
from maskjax.tokens import Text

TOPICS = dict(name="python_topics", split="test")


@functools.cache
def source(length=32, size=300):
  """Rows of Python's reference, with many words of several tokens."""
  return text(
    documents=TOPICS, tokenizer=dict(documents=TOPICS, size=size), length=length
  )


def batch(count=4, **options):
  """The first rows, which are full, and the last one, which is not."""
  rows = source(**options)
  chosen = [*range(count - 1), len(rows) - 1]
  columns = {name: column[chosen] for name, column in rows.columns.items()}
  return {
    **{name: jnp.asarray(column) for name, column in columns.items()},
    "index": jnp.arange(count),
  }


def row(batch, number):
  """One row, as samplers see it."""
  text = Text.of(batch)
  return jax.tree.map(lambda column: column[number], text)


def runs(hidden):
  """The first and the last place of each run of True."""
  edges = np.flatnonzero(np.diff(np.pad(np.asarray(hidden).astype(int), 1)))
  return [(a, b - 1) for a, b in edges.reshape(-1, 2)]
