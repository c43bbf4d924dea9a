"""Masks over the frequencies of an image, `True` where masked."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def low_frequencies(size: Sequence[int], radius: float) -> np.ndarray:
  """The low frequencies of a spectrum whose zero frequency is in the center.

  Args:
    size: (height, width) of the image, and so of its spectrum.
    radius: distance from the zero frequency, in entries of the spectrum, below which a
      frequency is low.

  Returns:
    bool [H, W], True at low frequencies.

  Example:
    >>> low_frequencies((4, 4), 1.5).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]
  """
  rows, columns = np.ogrid[: size[0], : size[1]]
  return (rows - size[0] // 2) ** 2 + (columns - size[1] // 2) ** 2 < radius**2


def low_or_high(
  key: Array, size: Sequence[int], *, radius: float, low_pass: float = 0.5
) -> Array:
  """Masks the high frequencies of one image, or the low ones.

  Args:
    key: the example's key.
    size: (height, width) of the image.
    radius: see `low_frequencies`.
    low_pass: probability that the high frequencies are masked, not the low ones.

  Returns:
    bool [H, W], True where masked, of the spectrum with its zero frequency in the
    center.

  Example:
    >>> int(low_or_high(jax.random.key(0), (4, 4), radius=1.5, low_pass=1.0).sum())
    7
  """
  low = jnp.asarray(low_frequencies(size, radius))
  return jnp.where(jax.random.bernoulli(key, low_pass), ~low, low)
