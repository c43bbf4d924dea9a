"""Two documents, in a packed row or in rows of their own, under the same masks."""

import jax.numpy as jnp
import numpy as np

from maskjax.masking import Mask

COLUMNS = ("token", "segment", "position", "word")


def every_third(key, text, count):
  """A sampler of the masks of `two_documents`, whatever the key."""
  del key, count
  return ~text.is_padding & (text.position % 3 == 1)


def two_documents(alone, lengths=(12, 20), length=32):
  """A batch with some words twice; every third token is masked.

  Returns:
    The columns, the mask, and where each document is: its row, and a slice.
  """
  rng = np.random.default_rng(0)
  parts = [rng.integers(4, 12, size=n) for n in lengths]
  columns = {name: np.zeros((2 if alone else 1, length), np.int32) for name in COLUMNS}
  columns["word"] -= 1
  masked, start, found = np.zeros(columns["token"].shape, bool), 0, []
  for number, part in enumerate(parts):
    row = number if alone else 0
    at = slice(start, start + len(part))
    found.append((row, at))
    part[0], part[-1] = 1, 2
    columns["token"][row, at] = part
    columns["segment"][row, at] = 1 if alone else number + 1
    columns["position"][row, at] = np.arange(len(part))
    columns["word"][row, at] = np.r_[-1, np.arange(len(part) - 2), -1]
    masked[row, at] = np.arange(len(part)) % 3 == 1
    start = 0 if alone else start + len(part)
  columns = {name: jnp.asarray(column) for name, column in columns.items()}
  spare = columns["segment"] == 0
  mask = Mask.at_most(jnp.asarray(masked), num_masked=12, spare=spare)
  return columns, mask, found
