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
