"""SparK: designing BERT for convolutional networks.

Masks units of 32 pixels and encodes what is visible with a ResNet or a ConvNeXt whose
layers are sparse: they read and write visible places alone, so that the pattern of the
mask neither fades nor shows in the statistics. The features of all scales, with an
embedding of their scale at masked places, go into a light decoder like a UNet's, which
predicts normalized pixels (https://arxiv.org/abs/2301.03580).
Config: `configs/image/spark.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask
from maskjax.models import conv_encoder
from maskjax.models.spark import LightDecoder, SparseAutoencoder
from maskjax.objectives import statistics
from maskjax.objectives.images import masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.reconstruction import Prediction
from maskjax.systems.system import System
from maskjax.targets import Pixels

SYSTEM = System(
  name="spark",
  family="image",
  paper="arXiv:2301.03580",
  config="configs/image/spark.py",
  agrees_with="transformers ResNetModel, ConvNextModel; equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spark(Prediction):
  """The objective of SparK; `spark` makes it from hyperparameters."""

  reads_extra = True

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and running averages."""
    one = {name: rows[:1] for name, rows in batch.items()}
    return statistics.init(self.model, key, self.patches(one), self.mask(one, key))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the masked units, with dropped paths."""
    del extra
    mask = self.mask(batch, key)
    # The first example's key, so that microbatches draw different numbers.
    draw = keys.example_keys(keys.named(key, "drop_path"), batch)[0]
    predicted, sums = statistics.train(
      self.model, params, self.patches(batch), mask, rngs={"drop_path": draw}
    )
    return dataclasses.replace(self.compare(predicted, mask, batch), sums=sums)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The same, normalized by running averages, with whole paths."""
    mask = self.mask(batch, key)
    predicted = self.predict(mask, Variables(params, extra), self.patches(batch))
    return self.compare(predicted, mask, batch)

  def compare(self, predicted: Array, mask: Mask, batch: Batch) -> Loss:
    """The loss of predictions [B, M, P]."""
    errors = self.error(predicted, mask.take_masked(self.targets(batch)))
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))

  def update_extra(
    self, params: Any, extra: Any, step: Array, sums: Mapping[str, Any]
  ) -> Any:
    """Moves the running averages."""
    del params, step
    return statistics.update(extra, sums)


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
  dtype: str = "float32",
) -> Spark:
  """Makes SparK from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), of the units that are masked, in pixels; the
      encoder's stride, of 32 pixels in the paper, when None.
    encoder: see `maskjax.models.conv_encoder`.
    decoder_width: channels of the decoder's smallest features.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the units that is masked.
    norm_pix_loss: normalize each target unit by its own mean and std.
    dtype: type of the computation; parameters are float32.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> spark().grid
    (7, 7)
  """
  network = conv_encoder(
    image_size=image_size, patch_size=patch_size, encoder=encoder, dtype=dtype
  )
  patch, stride = network.patch_size, network.network.stride
  if patch[0] % stride or patch[1] % stride:
    raise UserError(
      f"patch_size={patch_size}: expected a multiple of {stride}, the encoder's stride"
    )
  doublings = int(math.log2(stride))
  if decoder_width < 1 or decoder_width % 2**doublings:
    raise UserError(
      f"decoder_width={decoder_width}: expected a multiple of {2**doublings}, since "
      f"{doublings} doublings of the sides halve it"
    )
  target = Pixels(patch_size=patch, channels=channels, normalized=norm_pix_loss)
  decoder = LightDecoder(
    width=decoder_width, doublings=doublings, channels=channels, dtype=network.dtype
  )
  return Spark(
    model=SparseAutoencoder(encoder=network, decoder=decoder),
    **masks(network, mask, mask_ratio, patch_size=patch, channels=channels),
    target=target,
    error=squared_error,
  )
