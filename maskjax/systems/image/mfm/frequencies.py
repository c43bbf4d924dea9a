"""Spectra of images, masks over their frequencies, and the distance of two."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def spectrum(images: Array) -> Array:
  """The orthonormal two-dimensional Fourier transform, low frequencies in the middle.

  Args:
    images: [B, H, W, C].

  Returns:
    complex64 [B, H, W, C]; frequency 0 is at (H // 2, W // 2).

  Example:
    >>> abs(spectrum(jnp.ones((1, 2, 2, 1))))[0, :, :, 0].tolist()
    [[0.0, 0.0], [0.0, 2.0]]
  """
  frequencies = jnp.fft.fft2(images.astype(jnp.float32), axes=(1, 2), norm="ortho")
  return jnp.fft.fftshift(frequencies, axes=(1, 2))


def from_spectrum(frequencies: Array) -> Array:
  """The real part of the inverse of `spectrum`: float32 [B, H, W, C].

  Example:
    >>> from_spectrum(spectrum(jnp.ones((1, 2, 2, 1)))).tolist()[0]
    [[[1.0], [1.0]], [[1.0], [1.0]]]
  """
  back = jnp.fft.ifftshift(frequencies, axes=(1, 2))
  return jnp.fft.ifft2(back, axes=(1, 2), norm="ortho").real


def draw_spectrum(frequencies: Array, images: Array) -> Array:
  """Draws how strong the frequencies are, on a logarithmic scale.

  Args:
    frequencies: complex64 [B, H, W, C].
    images: [B, H, W, C], whose darkest value is drawn for 0, and whose brightest for
      the strongest frequency of a spectrum of theirs.

  Returns:
    float32 [B, H, W, C].

  Example:
    >>> images = jnp.ones((1, 2, 2, 1)).at[0, 0, 0].set(0)
    >>> print(draw_spectrum(spectrum(images), images)[0, :, :, 0].round(2))
    [[0.44 0.44]
     [0.44 1.  ]]
  """
  strength = jnp.log1p(abs(frequencies))
  strongest = jnp.log1p(abs(spectrum(images))).max(axis=(1, 2, 3), keepdims=True)
  low, high = images.min(), images.max()
  drawn = low + (high - low) * strength / jnp.maximum(strongest, 1e-6)
  return jnp.clip(drawn, low, high)


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


def spectral_distance(
  predictions: Array, targets: Array, *, gamma: float = 1.0, focal: float = 0.0
) -> Array:
  """How far apart the frequencies of two spectra lie in the complex plane.

  `|p - t| ** gamma` (https://arxiv.org/abs/2206.07706, section 3.3), times
  `|p - t| ** focal` over its maximum in the spectrum, without a gradient
  (https://arxiv.org/abs/2012.12821, section 3.2).

  Args:
    predictions: complex64 [B, H, W, C].
    targets: the same.
    gamma: exponent of the distance.
    focal: exponent of the weights; 0 weighs all the same.

  Returns:
    float32 [B, H, W, C].

  Example:
    >>> p, t = jnp.array([[[[3.0 + 4.0j]]]]), jnp.zeros((1, 1, 1, 1))
    >>> spectral_distance(p, t).tolist()
    [[[[5.0]]]]
  """
  chex.assert_equal_shape([predictions, targets])
  apart = predictions - targets
  # Never 0, where a root has no gradient.
  squared = jnp.square(apart.real) + jnp.square(apart.imag) + 1e-12
  distances = squared ** (gamma / 2)
  if not focal:
    return distances
  weights = jax.lax.stop_gradient(squared) ** (focal / 2)
  return distances * weights / weights.max(axis=(1, 2), keepdims=True)
