"""Selfie: self-supervised pretraining for image embedding.

BERT's objective without pixels to predict: the first stages of a ResNet-50 make one
vector of each patch, attention pools those of the visible ones, and the result, with
the embedding of a masked position added, has to pick the patch that belongs there among
all masked patches of the same image (https://arxiv.org/abs/1906.02940). What is kept is
the convolutional network. Config: `configs/image/selfie.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError, did_you_mean
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask, masking_of
from maskjax.models import BlockOptions, Transformer, check_shape, conv_encoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import LayerNorm
from maskjax.objectives import batch_statistics
from maskjax.objectives.objective import (
  Batch,
  Step,
  Variables,
  first_example,
  valid,
)
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.system import System
from maskjax.tokens import patches_of

SYSTEM = System(
  name="selfie",
  family="image",
  paper="arXiv:1906.02940",
  config="configs/image/selfie.py",
  agrees_with="transformers ResNetModel; equations in NumPy",
  differs=(
    "The authors published no code. What the paper leaves open is ours: normalization "
    "before each branch of the pooling, a learning rate of 0.1 (it tunes from 0.01 to "
    "0.4), and the crops.",
    "The patches' network keeps its strides: a patch of 32 pixels is 2 by 2 features "
    "at its end, whose mean is the patch's vector.",
  ),
)

POSITIONS = ("each", "rows_columns")
FIRST_BLOCKS = {"name": "resnet", "widths": (256, 512, 1024), "depths": (3, 4, 6)}


class PatchChooser(EncoderModel):
  """Picks for each masked position the patch that belongs there.

  A convolutional network makes one vector of each patch, by itself. Attention pools
  those of visible patches into one; with the embedding of a position added, it is
  compared with those of masked patches (https://arxiv.org/abs/1906.02940, section 3).

  Attributes:
    encoder: the patch processing network, with D channels.
    depth: number of blocks of the attention pooling.
    heads: number of its attention heads.
    positions: `each`, an embedding for each position; or `rows_columns`, the sum of one
      for its row and one for its column.
    options: of the blocks of the pooling.
  """

  depth: int
  heads: int
  positions: str = "rows_columns"
  options: BlockOptions = BlockOptions()

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Compares positions with patches.

    Args:
      patches: [B, N, P].
      mask: which patches are to be picked from, and for which positions.

    Returns:
      float32 logits [B, M, M]: of each masked position, in order, how well each masked
      patch, in order, fits there.
    """
    dtype = self.encoder.dtype
    vectors = self.encoder.each(patches)
    width = vectors.shape[-1]
    positions = self._positions(width).astype(dtype)
    visible = mask.take_visible(vectors) + positions[mask.visible_ids]
    query = self.param("query", nn.initializers.normal(0.02), (width,)).astype(dtype)
    query = jnp.broadcast_to(query, (len(visible), 1, width))
    pooled = Transformer(
      depth=self.depth, heads=self.heads, options=self.options, name="pooling"
    )(jnp.concatenate([visible, query], axis=1), 1)[-1]
    pooled = LayerNorm(dtype=dtype, name="norm")(pooled)  # [B, 1, D]
    queries = pooled + positions[mask.masked_ids]
    return jnp.einsum(
      "bmd,bkd->bmk",
      queries,
      mask.take_masked(vectors),
      preferred_element_type=jnp.float32,
    )

  def _positions(self, width: int) -> Array:
    """Embeddings of all positions: [N, width]."""
    rows, columns = self.encoder.grid
    init = nn.initializers.normal(0.02)
    if self.positions == "each":
      return self.param("positions", init, (rows * columns, width))
    of_rows = self.param("rows", init, (rows, 1, width))
    of_columns = self.param("columns", init, (1, columns, width))
    return (of_rows + of_columns).reshape(-1, width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selfie(PatchObjective):
  """The objective of Selfie; `selfie` makes it from hyperparameters."""

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and running averages."""
    one = first_example(batch)
    mask = self.mask(one, Step(key))
    return batch_statistics.init(self.model, key, self.patches(one), mask)

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy of the right patch, a mean over masked positions."""
    mask, rngs = self.mask(batch, step), self.rngs(batch, step)
    logits, sums = batch_statistics.apply(
      self.model, variables.params, self.patches(batch), mask, rngs=rngs
    )
    return dataclasses.replace(choice_loss(logits, batch), sums=sums)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy of the right patch, normalized by running averages."""
    mask = self.mask(batch, step)
    return choice_loss(self.apply(variables, self.patches(batch), mask), batch)

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the running averages."""
    return batch_statistics.update(variables, sums)


def choice_loss(logits: Array, batch: Batch) -> Loss:
  """The loss of logits [B, M, M]: masked patch m belongs to masked position m."""
  count = logits.shape[-1]
  right = jnp.broadcast_to(jnp.eye(count), logits.shape)
  where = valid(batch)[:, None]
  found = logits.argmax(axis=-1) == jnp.arange(count)
  return Loss.of(
    Mean.of(cross_entropy(logits, right), where), accuracy=Mean.of(found, where)
  )


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
      for each position, as for small images.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    dtype: type of the computation; parameters are float32.
    scan: compile one block and loop over it, see `maskjax.models.BlockOptions`.
    remat: `none`, `dots` or `full`: which activations of the pooling are computed again
      in the backward pass, see `maskjax.models.BlockOptions`.

  Raises:
    UserError: a size, a shape, a ratio or a network that does not fit; names it.

  Example:
    >>> selfie().masking.num_masked
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
  patches = patches_of(image_size, network.patch_size, channels=channels)
  policy = masking_of(patches.grid, mask, mask_ratio)
  num_masked = policy.num_masked
  if num_masked < 2:
    raise UserError(
      f"mask_ratio={mask_ratio} masks {num_masked} patch: expected at least 2, to have "
      "distractors"
    )
  return Selfie(
    model=PatchChooser(encoder=network, positions=positions, options=options, **shape),
    patches=patches,
    masking=policy,
  )
