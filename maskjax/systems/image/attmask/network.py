"""An encoder whose tokens are compared with a learned set of prototypes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError, at_least_one, did_you_mean
from maskjax.masking import Mask
from maskjax.models import CosineHead
from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.gelu import gelu
from maskjax.models.initialization import NORMAL, UNIFORM


class PrototypeHead(nn.Module):
  """The projection of DINO (https://arxiv.org/abs/2104.14294, appendix C).

  Three dense layers, then the cosine to each of a set of directions.

  Attributes:
    size: number of directions K.
    hidden: width of the first two layers.
    bottleneck: width of the third.
    fixed_length: see `CosineHead`.
    kernel_init: of the dense layers.
    dtype: type of the computation.
  """

  size: int = 8192
  hidden: int = 2048
  bottleneck: int = 256
  fixed_length: bool = False
  kernel_init: nn.initializers.Initializer = NORMAL
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, fixed: Array | bool = False) -> Array:
    """Logits of tokens: [B, N, D] to float32 [B, N, K], see `CosineHead`."""
    init = self.kernel_init
    for name, width in (("up", self.hidden), ("middle", self.hidden)):
      x = gelu(Dense(width, kernel_init=init, dtype=self.dtype, name=name)(x))
    x = Dense(self.bottleneck, kernel_init=init, dtype=self.dtype, name="down")(x)
    return CosineHead(
      size=self.size,
      kernel_init=UNIFORM,  # its authors make it after they have drawn all else
      fixed_length=self.fixed_length,
      dtype=self.dtype,
      name="prototypes",
    )(x, fixed)


def prototype_head(
  fields: Mapping[str, Any],
  dtype: DTypeLike,
  kernel_init: nn.initializers.Initializer = NORMAL,
) -> PrototypeHead:
  """Makes a head from hyperparameters, and checks them.

  Args:
    fields: of `PrototypeHead`.
    dtype: type of the computation.
    kernel_init: see `PrototypeHead`.

  Raises:
    UserError: a field that there is not, or a count below 1; names it.
  """
  known = ("size", "hidden", "bottleneck", "fixed_length")
  for key, value in fields.items():
    if key not in known:
      raise UserError(f"head.{key}: {did_you_mean(key, known)}")
    if key != "fixed_length":
      at_least_one(**{f"head.{key}": value})
  return PrototypeHead(**fields, kernel_init=kernel_init, dtype=dtype)


class DistilledEncoder(EncoderModel):
  """The network of student and teacher (iBOT, https://arxiv.org/abs/2111.07832).

  Attributes:
    encoder: a `VisionEncoder` with a class token and `masked_patches="token"`.
    head: gives logits of all its tokens, of the class token and of patches alike.
  """

  head: PrototypeHead

  def __call__(
    self, patches: Array, mask: Mask | None = None, fixed: Array | bool = False
  ) -> Array:
    """Logits of the class token and all patches: [B, N, P] to float32 [B, 1 + N, K].

    Args:
      patches: of whole images.
      mask: which of them the encoder must not see.
      fixed: see `PrototypeHead`.
    """
    return self.head(self.encoder(patches, mask), fixed)


def at_grid(
  model: DistilledEncoder, params: Mapping[str, Any], grid: tuple[int, ...]
) -> tuple[DistilledEncoder, dict[str, Any]]:
  """The network for images of another size, whose positions are interpolated.

  Args:
    model: the network, with learned positions.
    params: its parameters.
    grid: rows and columns of the other images' patches.

  Returns:
    The network and its parameters.
  """
  encoder = model.encoder
  rows, columns = (
    bicubic(old, new) for old, new in zip(encoder.grid, grid, strict=True)
  )
  table = params["encoder"]["positions"]
  table = jnp.einsum(
    "rp,cq,pqd->rcd", rows, columns, table.reshape(*encoder.grid, encoder.width)
  )
  positions = table.reshape(-1, encoder.width)
  return model.clone(encoder=encoder.clone(grid=grid)), {
    **params,
    "encoder": {**params["encoder"], "positions": positions},
  }


def bicubic(old: int, new: int) -> np.ndarray:
  """Weights of positions along a side for those of another number of positions.

  As torch's bicubic interpolation has them, whose kernel has the parameter -0.75 and
  does not widen for fewer positions, at the scale of DINO's authors, (new + 0.1) / old.

  Args:
    old: number of positions that there are.
    new: number of positions that are wanted.

  Returns:
    float32 [new, old], the rows sum to 1.

  Example:
    >>> [f"{weight:.2f}" for weight in bicubic(2, 1)[0]]
    ['0.60', '0.40']
  """
  centers = (np.arange(new) + 0.5) * old / (new + 0.1) - 0.5
  weights = np.zeros((new, old))
  for offset in range(-1, 3):
    taps = np.floor(centers) + offset
    far, a = np.abs(centers - taps), -0.75
    near = ((a + 2) * far - (a + 3)) * far**2 + 1
    wide = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    # Beyond the edges, the last position is repeated.
    columns = np.clip(taps, 0, old - 1).astype(int)
    np.add.at(weights, (np.arange(new), columns), np.where(far <= 1, near, wide))
  return weights.astype(np.float32)
