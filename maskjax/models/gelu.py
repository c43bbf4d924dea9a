"""GELU: exact, its backward pass needing its input alone, and as CLIP has it."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array


def _normal(x: Array) -> Array:
  """The normal distribution's function: the probability of less than x."""
  return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


@jax.custom_jvp
def _gelu(x: Array) -> Array:
  wide = x.astype(jnp.float32)
  return (wide * _normal(wide)).astype(x.dtype)


@_gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
  (x,), (step,) = primals, tangents
  wide = x.astype(jnp.float32)
  density = jnp.exp(-0.5 * jnp.square(wide)) / math.sqrt(2 * math.pi)
  slope = _normal(wide) + wide * density
  return _gelu(x), (slope * step.astype(jnp.float32)).astype(x.dtype)


# JAX would keep arrays of a transformer's widest activation, which are cheaper to
# compute again than to write and read.
@functools.partial(jax.checkpoint, prevent_cse=False)
def gelu(x: Array) -> Array:
  """GELU as the paper defines it (https://arxiv.org/abs/1606.08415, equation 1).

  Args:
    x: [...].

  Returns:
    [...], in the type of `x`; float32 inside.

  Example:
    >>> [f"{y:.3f}" for y in gelu(jnp.array([-1.0, 0.0, 1.0]))]
    ['-0.159', '0.000', '0.841']
  """
  return _gelu(x)


def quick_gelu(x: Array) -> Array:
  """GELU by a sigmoid, as CLIP has it (https://arxiv.org/abs/1606.08415, section 2).

  Example:
    >>> [f"{y:.3f}" for y in quick_gelu(jnp.array([-1.0, 0.0, 1.0]))]
    ['-0.154', '0.000', '0.846']
  """
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
  "gelu": gelu,
  "leaky_relu": jax.nn.leaky_relu,
  "quick_gelu": quick_gelu,
  "silu": jax.nn.silu,
}
