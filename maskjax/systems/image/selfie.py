"""Selfie: self-supervised pretraining for image embedding.

BERT's objective without pixels to predict: the first stages of a ResNet-50 make one vector
of each patch, attention pools those of the visible ones, and what comes out, with the
embedding of a masked place added, has to pick the patch that belongs there among all
masked patches of the same image (https://arxiv.org/abs/1906.02940). What is kept is the
convolutional network. Config: `configs/image/selfie.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.models import BlockOptions, check_shape, conv_encoder
from maskjax.models.selfie import POSITIONS, PatchChooser
from maskjax.objectives import statistics
from maskjax.objectives.images import ImageObjective, masks
from maskjax.objectives.objective import Batch, Variables, collections, valid
from maskjax.resolve import did_you_mean
from maskjax.systems.system import System

SYSTEM = System(
  name="selfie",
  family="image",
  paper="arXiv:1906.02940",
  config="configs/image/selfie.py",
  agrees_with="transformers ResNetModel; equations in NumPy",
)

FIRST_BLOCKS = {"name": "resnet", "widths": (256, 512, 1024), "depths": (3, 4, 6)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selfie(ImageObjective):
  """The objective of Selfie; `selfie` makes it from hyperparameters."""

  reads_extra = True

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and running averages."""
    one = {name: rows[:1] for name, rows in batch.items()}
    return statistics.init(self.model, key, self.patches(one), self.mask(one, key))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropy of the right patch, a mean over masked places."""
    del extra
    logits, sums = statistics.train(
      self.model, params, self.patches(batch), self.mask(batch, key)
    )
    return dataclasses.replace(self.compare(logits, batch), sums=sums)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The same, normalized by running averages."""
    variables = collections(Variables(params, extra))
    logits = self.model.apply(variables, self.patches(batch), self.mask(batch, key))
    return self.compare(cast(Array, logits), batch)

  def compare(self, logits: Array, batch: Batch) -> Loss:
    """The loss of logits [B, M, M]: patch m belongs to place m."""
    right = jnp.broadcast_to(jnp.eye(self.num_masked), logits.shape)
    counts = valid(batch)[:, None]
    found = logits.argmax(axis=-1) == jnp.arange(self.num_masked)
    return Loss.of(
      Mean.of(cross_entropy(logits, right), counts), accuracy=Mean.of(found, counts)
    )

  def update_extra(
    self, params: Any, extra: Any, step: Array, sums: Mapping[str, Any]
  ) -> Any:
    """Moves the running averages."""
    del params, step
    return statistics.update(extra, sums)


def selfie(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 32,
  encoder: Mapping[str, Any] | str | None = None,
  pooling: Mapping[str, Any] | None = None,
  positions: str = "rows_columns",
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.25,
  dtype: str = "float32",
  scan: bool = False,
  remat: str = "none",
) -> Selfie:
  """Makes Selfie from hyperparameters; the defaults are the paper's for ImageNet.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: the network of patches, see `maskjax.models.conv_encoder`; the first three
      stages of a ResNet-50 when None.
    pooling: `depth`, `heads` and `mlp_ratio` of the attention pooling; 3, 32 and 0.625
      unless given.
    positions: `rows_columns`, an embedding for each row and each column; or `each`, one
      for each place, as for small images.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    dtype: type of the computation; parameters are float32.
    scan: compile one block and loop over it, see `maskjax.models.BlockOptions`.
    remat: `none`, `dots` or `full`: which activations of the pooling are computed again
      in the backward pass, see `maskjax.models.BlockOptions`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> selfie().num_masked
    13
  """
  network = conv_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=FIRST_BLOCKS if encoder is None else encoder,
    dtype=dtype,
  )
  shape = {"depth": 3, "heads": 32, "mlp_ratio": 0.625, **(pooling or {})}
  options = BlockOptions(
    mlp_ratio=shape.pop("mlp_ratio"), scan=scan, remat=remat, dtype=dtype
  )
  shape["width"] = network.network.widths[-1]
  shape = check_shape("pooling", shape)
  del shape["width"]
  if positions not in POSITIONS:
    raise UserError(f"positions={positions!r}: {did_you_mean(positions, POSITIONS)}")
  images = masks(
    network, mask, mask_ratio, patch_size=network.patch_size, channels=channels
  )
  num_masked = images["num_masked"]
  if num_masked < 2:
    raise UserError(
      f"mask_ratio={mask_ratio} masks {num_masked} patch: expected at least 2, to have "
      "distractors"
    )
  return Selfie(
    model=PatchChooser(encoder=network, positions=positions, options=options, **shape),
    **images,
  )
