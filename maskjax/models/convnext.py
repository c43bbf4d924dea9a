"""ConvNeXt."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.convolution import conv, zero_masked
from maskjax.models.dropout import stochastic_depth
from maskjax.models.initialization import SCHEMES
from maskjax.models.transformer import LayerNorm, Mlp
from maskjax.sharding import constrain_batch


class ConvNextBlock(nn.Module):
  """A depthwise convolution of 7x7, and an MLP on each position.

  Attributes:
    layer_scale: what the branch's channels are multiplied by at first, as parameters.
    initialization: see `maskjax.models.BlockOptions`.
    dtype: type of the computation.
  """

  layer_scale: float = 1e-6
  initialization: str = "xavier"
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, masked: Array | None = None, rate: Array | float = 0.0
  ) -> Array:
    """[B, H, W, C] to the same, see `ConvNext`."""
    x = constrain_batch(x)
    width, drawn = x.shape[-1], SCHEMES[self.initialization]
    y = conv(
      width,
      7,
      groups=width,
      use_bias=True,
      init=drawn.positions,
      dtype=self.dtype,
      name="depthwise",
    )(x)
    y = LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(y)
    y = Mlp(drawn=drawn.inner, dtype=self.dtype, name="mlp")(y)
    init = nn.initializers.constant(self.layer_scale)
    y = y * self.param("layer_scale", init, (width,)).astype(y.dtype)
    # All but the convolution read one position alone: zeros once are enough.
    return constrain_batch(x + stochastic_depth(self, zero_masked(y, masked), rate))


class ConvNext(nn.Module):
  """A ConvNeXt (https://arxiv.org/abs/2201.03545), dense or sparse.

  Attributes:
    widths: channels after each stage; each but the first halves both sides.
    depths: blocks of each stage.
    stem_stride: side of the patches that the first convolution reads.
    layer_scale: see `ConvNextBlock`.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    initialization: see `maskjax.models.BlockOptions`.
    dtype: type of the computation; parameters are float32.
  """

  widths: Sequence[int]
  depths: Sequence[int]
  stem_stride: int = 4
  layer_scale: float = 1e-6
  drop_path: float = 0.0
  initialization: str = "xavier"
  dtype: DTypeLike = jnp.float32

  @property
  def stride(self) -> int:
    """Pixels between two positions of the last stage."""
    return self.stem_stride * 2 ** (len(self.widths) - 1)

  @nn.compact
  def __call__(self, images: Array, masked: Array | None = None) -> list[Array]:
    """The features after each stage, see `maskjax.models.resnet.ResNet`."""

    def norm(x: Array, name: str) -> Array:
      return LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)(x)

    def reduce(x: Array, width: int, by: int, name: str) -> Array:
      init = SCHEMES[self.initialization].positions
      return conv(width, by, by, use_bias=True, init=init, dtype=self.dtype, name=name)(
        x
      )

    rates = iter(jnp.linspace(0.0, self.drop_path, sum(self.depths)))
    outputs: list[Array] = []
    x = images
    for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
      if i == 0:
        x = norm(reduce(x, width, self.stem_stride, "stem"), "stem_norm")
      else:
        x = reduce(norm(x, f"reduce_{i}_norm"), width, 2, f"reduce_{i}")
      # Their windows lie in visible parts or in masked ones, never in both.
      x = zero_masked(x, masked)
      for j in range(depth):
        x = ConvNextBlock(
          layer_scale=self.layer_scale,
          initialization=self.initialization,
          dtype=self.dtype,
          name=f"stage_{i}_block_{j}",
        )(x, masked, next(rates))
      outputs.append(x)
    return outputs
