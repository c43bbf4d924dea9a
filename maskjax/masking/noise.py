"""Masks from filtered noise, each named by the color of its noise.

ColorMAE (https://arxiv.org/abs/2407.13036, section 3) filters an image of white noise
`W` by Gaussians `G`, crops a window of the size of the token grid, and masks the tokens
where the window is lowest: red is `G W`, blue `W - G W`, green the band between two
Gaussians, purple all frequencies outside that band.

The paper makes its noise images before training, and crops and mirrors windows of them.
Here the noise of each window is drawn from the example's key, with a margin as wide as
the filter: a window of an infinite image, which no two examples share.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax.errors import UserError
from maskjax.masking.mask import rows_and_columns
from maskjax.masking.selection import highest

# The stds at which a Gaussian is cut off, as by SciPy.
TRUNCATE = 4


def red(
  key: Array, grid: Sequence[int], num_masked: int, *, sigma: float = 2.0
) -> Array:
  """Masks large connected areas: noise of low frequencies.

  Args:
    key: the example's key.
    grid: rows and columns of the token grid; N is their product.
    num_masked: how many tokens to mask.
    sigma: std of the filter, in tokens.

  Returns:
    bool [N], exactly `num_masked` True.

  Raises:
    UserError: `sigma` is not above 0, or the grid does not have two sides.

  Example:
    >>> int(red(jax.random.key(0), (14, 14), 147).sum())
    147
  """
  _, low = _white_and_blurred(key, grid, sigma)
  return _lowest(low, num_masked)


def blue(
  key: Array, grid: Sequence[int], num_masked: int, *, sigma: float = 0.5
) -> Array:
  """Masks tokens spread evenly over the grid: noise of high frequencies.

  Args, Returns and Raises: see `red`.
  """
  white, low = _white_and_blurred(key, grid, sigma)
  return _lowest(white - low, num_masked)


def green(
  key: Array,
  grid: Sequence[int],
  num_masked: int,
  *,
  sigmas: Sequence[float] = (0.5, 2.0),
) -> Array:
  """Masks clusters of medium size: noise of a band of frequencies.

  Args:
    key: the example's key.
    grid: rows and columns of the token grid; N is their product.
    num_masked: how many tokens to mask.
    sigmas: stds of the two filters in tokens, the smaller one first; the band lies
      between them.

  Returns:
    bool [N], exactly `num_masked` True.

  Raises:
    UserError: `sigmas` are not two, ascending and above 0; or the grid does not have
      two sides.
  """
  _, fine, coarse = _white_and_blurred(key, grid, *_ascending("green", sigmas))
  return _lowest(fine - coarse, num_masked)


def purple(
  key: Array,
  grid: Sequence[int],
  num_masked: int,
  *,
  sigmas: Sequence[float] = (0.5, 2.0),
) -> Array:
  """Masks large areas and single tokens: noise of all frequencies outside a band.

  Args, Returns and Raises: see `green`.
  """
  white, fine, coarse = _white_and_blurred(key, grid, *_ascending("purple", sigmas))
  return _lowest(white - (fine - coarse), num_masked)


def _ascending(color: str, sigmas: Sequence[float]) -> Sequence[float]:
  if len(sigmas) != 2 or sigmas[0] >= sigmas[1]:
    raise UserError(f"{color} masks: sigmas={sigmas}: expected two, the smaller first")
  return sigmas


def _lowest(noise: Array, num_masked: int) -> Array:
  return highest(-noise.ravel(), num_masked)


def _white_and_blurred(key: Array, grid: Sequence[int], *sigmas: float) -> list[Array]:
  """A window of white noise, and the same blurred by each of `sigmas`: [R, C] each."""
  rows, columns = rows_and_columns(grid, "masks of noise")
  if min(sigmas) <= 0:
    raise UserError(f"masks of noise: sigma={min(sigmas)}: expected a positive number")
  margin = _radius(max(sigmas))
  noise = jax.random.normal(key, (rows + 2 * margin, columns + 2 * margin))

  def blurred(sigma: float) -> Array:
    down, across = blur(rows, margin, sigma), blur(columns, margin, sigma)
    # TPUs would multiply in bfloat16 by default, and mask other tokens.
    return jnp.einsum("rm,mn,cn->rc", down, noise, across, precision="highest")

  window = noise[margin : margin + rows, margin : margin + columns]
  return [window, *(blurred(sigma) for sigma in sigmas)]


def blur(length: int, margin: int, sigma: float) -> np.ndarray:
  """The matrix of a Gaussian filter of one axis, whose input has a margin.

  Args:
    length: length N of the result.
    margin: M, further values at each end of the input.
    sigma: std of the filter.

  Returns:
    float32 [N, N + 2 M], each row of which sums to 1.
  """
  apart = np.arange(length + 2 * margin) - margin - np.arange(length)[:, None]
  weights = np.where(
    abs(apart) <= _radius(sigma), np.exp(-((apart / sigma) ** 2) / 2), 0.0
  )
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _radius(sigma: float) -> int:
  """The tokens on each side that a filter covers, rounded as SciPy does."""
  return int(TRUNCATE * sigma + 0.5)
