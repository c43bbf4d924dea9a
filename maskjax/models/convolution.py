"""Convolutions and batch normalization, of whole images or of their visible parts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.initialization import ZEROS

# He's initialization by the outputs, https://arxiv.org/abs/1502.01852, as ResNets have.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
  features: int,
  size: int,
  stride: int = 1,
  *,
  name: str,
  dtype: DTypeLike,
  groups: int = 1,
  use_bias: bool = False,
  init: nn.initializers.Initializer = HE,
  bias_init: nn.initializers.Initializer = ZEROS,
) -> nn.Conv:
  """A square convolution that gives [B, H / stride, W / stride, features].

  Args:
    features: channels of the output.
    size: side of the kernel; an even one is not padded, and has to be the stride.
    stride: positions between two outputs.
    name: of the module.
    dtype: type of the computation.
    groups: of channels, each convolved by itself.
    use_bias: add a bias.
    init: of the kernel.
    bias_init: of the bias.
  """
  return nn.Conv(
    features,
    (size, size),
    strides=stride,
    padding=size // 2 if size % 2 else 0,
    feature_group_count=groups,
    use_bias=use_bias,
    kernel_init=init,
    bias_init=bias_init,
    dtype=dtype,
    name=name,
  )


class Upsample(nn.Module):
  """A transposed convolution of 4x4 with stride 2, with a bias.

  It is computed as one convolution of 2x2 that gives the four outputs of each position
  as channels. `nn.ConvTranspose` puts zeros between the positions, whose gradients
  take a CPU 2 to 5 times as long (`benchmarks/doubling.py`).

  Attributes:
    features: channels of the output C.
    dtype: type of the computation.
  """

  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, H, W, D] to [B, 2H, 2W, C]."""
    batch, rows, columns, width = x.shape
    kernel = self.param("kernel", HE, (4, 4, width, self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    # An even output reads every other row of the kernel, and an odd one the others:
    # [2 taps, 2 outputs, 2 taps, 2 outputs, D, C] -> [2 taps, 2 taps, D, 4 C]
    kernel = kernel.reshape(2, 2, 2, 2, width, -1).transpose(0, 2, 4, 1, 3, 5)
    # Padded beforehand: XLA is slow at gradients of even kernels that pad.
    x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.lax.conv_general_dilated(
      x,
      kernel.reshape(2, 2, width, -1).astype(self.dtype),
      window_strides=(1, 1),
      padding="VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    # Odd outputs begin a position later than even ones.
    y = y.reshape(batch, rows + 1, columns + 1, 2, 2, -1)
    y = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)
    y = jnp.stack([y[:, :, :, :-1, 0], y[:, :, :, 1:, 1]], axis=4)
    return y.reshape(batch, 2 * rows, 2 * columns, -1) + bias.astype(self.dtype)


def upsample_mask(mask: Array, height: int, width: int) -> Array:
  """Repeats a mask of patches for all finer positions that each covers.

  Args:
    mask: bool [B, rows, columns].
    height: a multiple of the rows.
    width: a multiple of the columns.

  Returns:
    bool [B, height, width, 1].

  Example:
    >>> upsample_mask(jnp.array([[[True, False]]]), 1, 4)[0, :, :, 0].tolist()
    [[True, True, False, False]]
  """
  rows, columns = mask.shape[1:]
  if height % rows or width % columns:
    raise ValueError(f"masks of {rows}x{columns} on features of {height}x{width}")
  fine = jnp.repeat(jnp.repeat(mask, height // rows, 1), width // columns, 2)
  return fine[..., None]


def zero_masked(x: Array, masked: Array | None) -> Array:
  """Sets the features at masked positions to 0.

  A dense layer between two of these is a sparse one: it reads visible positions alone,
  and writes them alone (https://arxiv.org/abs/2301.03580, section 3.1).

  Args:
    x: [B, H, W, C].
    masked: bool [B, rows, columns], see `upsample_mask`; nothing is masked when None.

  Returns:
    [B, H, W, C].
  """
  return x if masked is None else jnp.where(upsample_mask(masked, *x.shape[1:3]), 0, x)


class BatchNorm(nn.Module):
  """Normalizes each channel over the batch and its visible positions.

  By the statistics of the batch itself where the collection `moments` is mutable, which
  then takes their sums; else by the running averages in the collection `statistics`,
  see `running`. On a mesh a batch is that of all devices; of a step with microbatches,
  each is a batch. Masked positions are 0.

  Attributes:
    epsilon: added to the variance.
    scale_init: of the scales.
    dtype: type of the output; statistics are float32.
  """

  epsilon: float = 1e-5
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, masked: Array | None = None) -> Array:
    """Normalizes [B, H, W, C], see `zero_masked`."""
    width = x.shape[-1:]
    scale = self.param("scale", self.scale_init, width)
    bias = self.param("bias", nn.initializers.zeros_init(), width)
    x = x.astype(jnp.float32)
    trains = self.is_mutable_collection("moments")
    if self.is_initializing() or not trains:
      mean = self.variable("statistics", "mean", jnp.zeros, width).value
      variance = self.variable("statistics", "variance", jnp.ones, width).value
    if trains:
      mean, variance = self._of_batch(x, masked)
    y = (x - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias
    return zero_masked(y.astype(self.dtype), masked)

  def _of_batch(self, x: Array, masked: Array | None) -> tuple[Array, Array]:
    where = None if masked is None else ~upsample_mask(masked, *x.shape[1:3])
    mean = x.mean(axis=(0, 1, 2), where=where)
    # In two passes, for the digits, see `maskjax.models.transformer.LayerNorm`.
    variance = jnp.square(x - mean).mean(axis=(0, 1, 2), where=where)
    count = jnp.float32(math.prod(x.shape[:3]))
    if where is not None:
      count = count * where.mean(dtype=jnp.float32)
    sums = {"count": count, "sum": count * mean}
    sums["squares"] = count * (variance + jnp.square(mean))
    for name, value in sums.items():
      self.put_variable("moments", name, value)
    return mean, variance


def running(statistics: Any, moments: Any, *, decay: float = 0.9) -> Any:
  """Moves running averages toward the statistics of a batch.

  Args:
    statistics: of all normalizations of a network, a tree.
    moments: the tree of the sums that they took, added up over microbatches.
    decay: of the averages.

  Returns:
    Statistics.

  Example:
    >>> before = {"mean": jnp.float32(0), "variance": jnp.float32(1)}
    >>> sums = {"count": 2, "sum": jnp.float32(4), "squares": jnp.float32(10)}
    >>> {k: float(v) for k, v in running(before, sums, decay=0.5).items()}
    {'mean': 1.0, 'variance': 1.0}
  """
  if "count" not in moments:
    return {
      name: running(of_part, moments[name], decay=decay)
      for name, of_part in statistics.items()
    }
  mean = moments["sum"] / moments["count"]
  variance = moments["squares"] / moments["count"] - jnp.square(mean)
  new = {"mean": mean, "variance": jnp.maximum(variance, 0)}
  return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, statistics, new)
