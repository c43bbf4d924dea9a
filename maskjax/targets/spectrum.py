"""Spectra of images."""

import jax.numpy as jnp
from jax import Array


def spectrum(images: Array) -> Array:
  """The orthonormal two-dimensional Fourier transform, low frequencies in the middle.

  Args:
    images: [B, H, W, C].

  Returns:
    complex64 [B, H, W, C]; frequency 0 lies at (H // 2, W // 2).

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
