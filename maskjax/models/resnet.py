"""ResNets."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.convolution import BatchNorm, conv, zero_masked
from maskjax.models.dropout import stochastic_depth
from maskjax.models.initialization import SCHEMES
from maskjax.sharding import constrain_batch


class ResNetBlock(nn.Module):
  """A residual block, with the stride in its 3x3 convolution.

  Attributes:
    width: channels of the output.
    stride: of the block.
    bottleneck: 1x1, 3x3 and 1x1, the inner ones with a quarter of the channels; else
      two of 3x3.
    ends_at_0: see `maskjax.models.initialization.Initialization`.
    dtype: type of the computation.
  """

  width: int
  stride: int = 1
  bottleneck: bool = True
  ends_at_0: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, masked: Array | None = None, rate: Array | float = 0.0
  ) -> Array:
    """[B, H, W, C] to [B, H / stride, W / stride, width], see `ResNet`."""
    x = constrain_batch(x)

    def layer(
      x: Array, features: int, size: int, stride: int, name: str, last: bool = False
    ) -> Array:
      x = conv(features, size, stride, name=name, dtype=self.dtype)(x)
      at_0 = last and self.ends_at_0 and name != "shortcut"
      norm = BatchNorm(
        scale_init=nn.initializers.zeros if at_0 else nn.initializers.ones,
        dtype=self.dtype,
        name=f"{name}_norm",
      )
      x = norm(x, masked)
      return x if last else jax.nn.relu(x)

    if self.bottleneck:
      y = layer(x, self.width // 4, 1, 1, "conv_0")
      y = layer(y, self.width // 4, 3, self.stride, "conv_1")
      y = layer(y, self.width, 1, 1, "conv_2", last=True)
    else:
      y = layer(x, self.width, 3, self.stride, "conv_0")
      y = layer(y, self.width, 3, 1, "conv_1", last=True)
    if x.shape[-1] != self.width or self.stride > 1:
      x = layer(x, self.width, 1, self.stride, "shortcut", last=True)
    return constrain_batch(jax.nn.relu(x + stochastic_depth(self, y, rate)))


class ResNet(nn.Module):
  """A ResNet (https://arxiv.org/abs/1512.03385), dense or sparse.

  Attributes:
    widths: channels after each stage; each but the first halves both sides.
    depths: blocks of each stage.
    bottleneck: see `ResNetBlock`.
    stem_stride: 4 for a convolution of 7x7 and a pooling, as for ImageNet; 2 and 1 for
      one of 3x3 alone, for small images.
    stem_width: channels of the first convolution.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    initialization: see `maskjax.models.BlockOptions`.
    dtype: type of the computation; parameters and statistics are float32.
  """

  widths: Sequence[int]
  depths: Sequence[int]
  bottleneck: bool = True
  stem_stride: int = 4
  stem_width: int = 64
  drop_path: float = 0.0
  initialization: str = "xavier"
  dtype: DTypeLike = jnp.float32

  @property
  def stride(self) -> int:
    """Pixels between two positions of the last stage."""
    return self.stem_stride * 2 ** (len(self.widths) - 1)

  @nn.compact
  def __call__(self, images: Array, masked: Array | None = None) -> list[Array]:
    """The features after each stage.

    Args:
      images: [B, H, W, C].
      masked: bool [B, rows, columns], True for the parts of the image that no layer may
        read; their features are 0.

    Returns:
      [B, H / stride, W / stride, width] for each stage.
    """
    size, stride = (7, 2) if self.stem_stride == 4 else (3, self.stem_stride)
    x = zero_masked(images, masked)
    x = conv(self.stem_width, size, stride, name="stem", dtype=self.dtype)(x)
    x = BatchNorm(dtype=self.dtype, name="stem_norm")(x, masked)
    x = jax.nn.relu(x)
    if self.stem_stride == 4:
      # Masked positions are 0, and nothing is less.
      x = zero_masked(nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), masked)
    rates = iter(jnp.linspace(0.0, self.drop_path, sum(self.depths)))
    outputs = []
    for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
      for j in range(depth):
        x = ResNetBlock(
          width=width,
          stride=2 if i > 0 and j == 0 else 1,
          bottleneck=self.bottleneck,
          ends_at_0=SCHEMES[self.initialization].ends_at_0,
          dtype=self.dtype,
          name=f"stage_{i}_block_{j}",
        )(x, masked, next(rates))
      outputs.append(x)
    return outputs
