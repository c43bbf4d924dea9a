"""SparK: designing BERT for convolutional networks.

Masks units of 32 pixels and encodes what is visible with a ResNet or a ConvNeXt whose
layers are sparse: they read and write visible positions alone, so that the pattern of
the mask neither fades nor shows in the statistics. The features of all scales, with an
embedding of their scale at masked positions, go into a light decoder like a UNet's,
which predicts normalized pixels (https://arxiv.org/abs/2301.03580).
Config: `configs/image/spark.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError
from maskjax.losses import Loss, squared_error
from maskjax.masking import Mask, masking_of
from maskjax.models import conv_encoder
from maskjax.models.convnext import ConvNext
from maskjax.models.convolution import (
  BatchNorm,
  Upsample,
  conv,
  upsample_mask,
  zero_masked,
)
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.initialization import NORMAL
from maskjax.models.transformer import LayerNorm
from maskjax.objectives import batch_statistics
from maskjax.objectives.objective import Batch, Step, Variables, first_example
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.reconstruction import patch_loss, pictures
from maskjax.systems.system import System
from maskjax.targets import Pixels, Target
from maskjax.tokens import patches_of, patchify

SYSTEM = System(
  name="spark",
  family="image",
  paper="arXiv:2301.03580",
  config="configs/image/spark.py",
  agrees_with="transformers ResNetModel, ConvNextModel; equations in NumPy",
  differs=(
    "Computation in bfloat16; the authors train in float32.",
    "Running variances divide by the number of positions; PyTorch's by one less.",
  ),
)


class LightDecoder(nn.Module):
  """Doubles features until they are as large as the image, like a UNet.

  Each doubling is a transposed convolution and two of 3x3, and halves the channels
  (https://arxiv.org/abs/2301.03580, section 3.2).

  Attributes:
    width: channels of the smallest features.
    doublings: how often the sides are doubled.
    channels: values a pixel.
    kernel_init: of the convolutions.
    dtype: type of the computation.
  """

  width: int
  doublings: int
  channels: int
  kernel_init: nn.initializers.Initializer = NORMAL
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, features: Sequence[Array]) -> Array:
    """Draws images.

    Args:
      features: dense, the smallest first: [B, H, W, width], then
        [B, 2H, 2W, width / 2] and so on, each added to the doubled ones before it.

    Returns:
      float32 [B, 2**doublings H, 2**doublings W, channels].
    """
    x, init = features[0], self.kernel_init
    for i in range(self.doublings):
      width = x.shape[-1]
      x = Upsample(width, dtype=self.dtype, name=f"double_{i}")(x)
      x = conv(width, 3, init=init, dtype=self.dtype, name=f"conv_{i}_0")(x)
      x = BatchNorm(dtype=self.dtype, name=f"norm_{i}_0")(x)
      x = nn.relu6(x)
      x = conv(width // 2, 3, init=init, dtype=self.dtype, name=f"conv_{i}_1")(x)
      x = BatchNorm(dtype=self.dtype, name=f"norm_{i}_1")(x)
      if i + 1 < len(features):
        x = x + features[i + 1]
    head = conv(
      self.channels,
      1,
      use_bias=True,
      init=init,
      dtype=self.dtype,
      name="head",
    )
    return head(x).astype(jnp.float32)


class SparseAutoencoder(EncoderModel):
  """The network of SparK (https://arxiv.org/abs/2301.03580, section 3).

  Attributes:
    encoder: its layers read and write visible positions alone.
    decoder: of its features at all scales, with embeddings where patches are masked.
  """

  decoder: LightDecoder

  @nn.compact
  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, P]; or all, [B, N, P]."""
    stages = self.encoder.stages(patches, mask.masked)
    # [B, N] -> [B, rows, columns]
    masked = mask.masked.reshape(-1, *self.encoder.grid)
    dense = [self.densified(x, masked, i) for i, x in enumerate(reversed(stages))]
    predicted = patchify(self.decoder(dense), self.encoder.patch_size)
    return predicted if visible_too else mask.take_masked(predicted)

  def densified(self, x: Array, masked: Array, i: int) -> Array:
    """Features of a scale as the decoder reads them: dense, and of its width.

    Masked positions get a learned embedding.

    Args:
      x: features of a scale, [B, H, W, C].
      masked: bool [B, rows, columns].
      i: the scale, 0 for the smallest.

    Returns:
      [B, H, W, width].
    """
    dtype, width = self.encoder.dtype, self.decoder.width // 2**i
    if isinstance(self.encoder.network, ConvNext):
      x = zero_masked(LayerNorm(epsilon=1e-6, dtype=dtype, name=f"norm_{i}")(x), masked)
    else:
      x = BatchNorm(dtype=dtype, name=f"norm_{i}")(x, masked)
    drawn = self.encoder.options.drawn
    # Without heads of their own, all convolutions are drawn alike.
    init = drawn.positions if drawn.head is None else drawn.mask_token
    embedding = self.param(f"embedding_{i}", init, x.shape[-1:]).astype(dtype)
    x = jnp.where(upsample_mask(masked, *x.shape[1:3]), embedding, x)
    if i == 0 and x.shape[-1] == width:
      return x
    size = 1 if i == 0 else 3
    like: dict[str, Any] = {}
    if drawn.head is not None:
      inputs = size * size * x.shape[-1]
      like = dict(init=drawn.head.kernel_init, bias_init=drawn.head.of_bias(inputs))
    return conv(width, size, use_bias=True, **like, dtype=dtype, name=f"project_{i}")(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparK(PatchObjective):
  """The objective of SparK; `spark` makes it from hyperparameters.

  Attributes:
    target: what is predicted.
    error: of each unit, from two [B, M, P] to [B, M].
  """

  target: Target
  error: Callable[[Array, Array], Array]

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and running averages."""
    one = first_example(batch)
    mask = self.mask(one, Step(key))
    return batch_statistics.init(self.model, key, self.patches(one), mask)

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the masked units, with dropped paths."""
    mask, rngs = self.mask(batch, step), self.rngs(batch, step)
    predictions, sums = batch_statistics.apply(
      self.model, variables.params, self.patches(batch), mask, rngs=rngs
    )
    loss = patch_loss(self.error, predictions, self.targets(batch), mask, batch)
    return dataclasses.replace(loss, sums=sums)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the masked units, by the whole network and running averages."""
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask)
    return patch_loss(self.error, predictions, self.targets(batch), mask, batch)

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the running averages."""
    return batch_statistics.update(variables, sums)

  def targets(self, batch: Batch) -> Array:
    """What is to be predicted of each unit: [B, N, P]."""
    return self.target(batch[self.patches.name])

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """See `maskjax.objectives.reconstruction.pictures`."""
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask)
    return pictures(self, self.target, predictions, batch, mask)


def spark(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] | None = None,
  encoder: Mapping[str, Any] | str = "resnet50",
  decoder_width: int = 768,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.6,
  norm_pix_loss: bool = True,
  initialization: str = "cnn",
  dtype: str = "float32",
) -> SparK:
  """Makes SparK from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), of the units that are masked, in pixels; the
      encoder's stride, of 32 pixels in the paper, when None.
    encoder: see `maskjax.models.conv_encoder`.
    decoder_width: channels of the decoder's smallest features.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the units that is masked, rounded to the nearest number.
    norm_pix_loss: normalize each target unit by its own mean and std.
    initialization: see `maskjax.models.BlockOptions`.
    dtype: type of the computation; parameters are float32.

  Raises:
    UserError: a size, a width, a ratio or a network that does not fit; names it.

  Example:
    >>> objective = spark()
    >>> objective.patches.grid, objective.masking.num_masked
    ((7, 7), 29)
  """
  network = conv_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    initialization=initialization,
    dtype=dtype,
  )
  patches = patches_of(image_size, network.patch_size, channels=channels)
  stride = network.network.stride
  if any(side % stride for side in patches.size):
    raise UserError(
      f"patch_size={patch_size}: expected a multiple of {stride}, the encoder's stride"
    )
  doublings = int(math.log2(stride))
  if decoder_width < 1 or decoder_width % 2**doublings:
    raise UserError(
      f"decoder_width={decoder_width}: expected a multiple of {2**doublings}, since "
      f"{doublings} doublings of the sides halve it"
    )
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
  decoder = LightDecoder(
    width=decoder_width,
    doublings=doublings,
    channels=channels,
    kernel_init=network.options.drawn.positions,
    dtype=network.dtype,
  )
  return SparK(
    model=SparseAutoencoder(encoder=network, decoder=decoder),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio, rounding="nearest"),
    target=target,
    error=squared_error,
  )
