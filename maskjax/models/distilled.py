"""Encoders whose tokens are told apart by a learnt set of prototypes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.gelu import ACTIVATIONS
from maskjax.resolve import did_you_mean


class PrototypeHead(nn.Module):
  """The projection of DINO (https://arxiv.org/abs/2104.14294, appendix C).

  Three dense layers, then the cosine to each of a set of directions.

  Attributes:
    size: number of directions K.
    hidden: width of the first two layers.
    bottleneck: width of the third.
    fixed_length: the directions have the length 1; else their lengths are learnt.
    dtype: type of the computation.
  """

  size: int = 8192
  hidden: int = 2048
  bottleneck: int = 256
  fixed_length: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, fixed: Array | bool = False) -> Array:
    """Scores tokens: [B, N, D] to float32 [B, N, K].

    Args:
      x: the tokens.
      fixed: let no gradient reach the directions.
    """
    init = nn.initializers.truncated_normal(0.02)
    for name, width in (("up", self.hidden), ("middle", self.hidden)):
      layer = Dense(width, kernel_init=init, dtype=self.dtype, name=name)
      x = ACTIVATIONS["gelu"](layer(x))
    x = Dense(self.bottleneck, kernel_init=init, dtype=self.dtype, name="down")(x)
    shape = (self.bottleneck, self.size)
    directions = self.param("kernel", nn.initializers.normal(), shape)
    directions = directions / jnp.linalg.norm(directions, axis=0)
    if not self.fixed_length:
      lengths = self.param("scale", nn.initializers.ones, (self.size,))
      directions = directions * lengths
    directions = jnp.where(fixed, jax.lax.stop_gradient(directions), directions)
    x = x.astype(jnp.float32)
    # Of length 1; at 0 with a gradient that is a number.
    length = jnp.sqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-24))
    return jnp.einsum(
      "bnd,dk->bnk",
      (x / length).astype(self.dtype),
      directions.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )


def prototype_head(fields: Mapping[str, Any], dtype: DTypeLike) -> PrototypeHead:
  """Makes a head from hyperparameters, and checks them.

  Args:
    fields: of `PrototypeHead`.
    dtype: type of the computation.

  Raises:
    UserError: names the field that there is not, or that does not fit.
  """
  known = ("size", "hidden", "bottleneck", "fixed_length")
  for key, value in fields.items():
    if key not in known:
      raise UserError(f"head.{key}: {did_you_mean(key, known)}")
    if key != "fixed_length" and (not isinstance(value, int) or value < 1):
      raise UserError(f"head.{key}={value}: expected a positive integer")
  return PrototypeHead(**fields, dtype=dtype)


class DistilledEncoder(nn.Module):
  """The network of iBOT's student and teacher (https://arxiv.org/abs/2111.07832).

  Attributes:
    encoder: a `VisionEncoder` with a class token and `hides_by="token"`.
    head: scores all its tokens, the class token's and the patches' alike.
  """

  encoder: Any
  head: PrototypeHead

  def __call__(
    self, patches: Array, mask: Mask | None = None, fixed: Array | bool = False
  ) -> Array:
    """Scores the class token and all patches: [B, N, P] to float32 [B, 1 + N, K].

    Args:
      patches: of whole images.
      mask: which of them the encoder must not see.
      fixed: see `PrototypeHead`.
    """
    return self.head(self.encoder(patches, mask), fixed)

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return self.encoder(patches)
