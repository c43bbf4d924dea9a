"""Rows of text to test with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.data.text import text
from maskjax.tokens import Text

REFERENCE = dict(name="python_reference", split="test")


@functools.cache
def source(length=32, size=300):
  """Rows of Python's reference, with many words of several tokens."""
  return text(
    documents=REFERENCE, tokenizer=dict(documents=REFERENCE, size=size), length=length
  )


def batch(count=4, **options):
  """Full rows, and at last the emptiest one."""
  rows = source(**options)
  order = np.argsort((rows.columns["segment"] == 0).sum(axis=1), kind="stable")
  chosen = [*order[: count - 1], order[-1]]
  columns = {name: column[chosen] for name, column in rows.columns.items()}
  return {
    **{name: jnp.asarray(column) for name, column in columns.items()},
    "index": jnp.arange(count),
  }


def row(batch, number):
  """One row, as samplers see it."""
  text = Text.of(batch)
  return jax.tree.map(lambda column: column[number], text)


def runs(masked):
  """The first and the last position of each run of True."""
  edges = np.flatnonzero(np.diff(np.pad(np.asarray(masked).astype(int), 1)))
  return [(a, b - 1) for a, b in edges.reshape(-1, 2)]
