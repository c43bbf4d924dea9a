"""DMT-JEPA: discriminative masked targets for joint-embedding prediction.

I-JEPA whose targets are aggregated from neighbors: of the patches around a target patch
those with the most similar features are chosen, and the image's mean feature attends to
them in light attention heads, whose output is predicted. The same heads, which the
teacher averages too, process the student's context
(https://arxiv.org/abs/2405.17995). Config: `configs/image/dmt_jepa.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError, at_least_one
from maskjax.masking import Mask, gather
from maskjax.models import BlockOptions, Decoder, Network
from maskjax.models.attention import Attention
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.joint_embedding import predict_blocks
from maskjax.models.transformer import Mlp, norm_like
from maskjax.objectives import teachers
from maskjax.objectives.joint_embedding import (
  BlockPrediction,
  block_prediction,
  context_networks,
)
from maskjax.systems.system import System
from maskjax.tokens import grid_positions, patches_of

SYSTEM = System(
  name="dmt_jepa",
  family="image",
  paper="arXiv:2405.17995",
  config="configs/image/dmt_jepa.py",
  agrees_with="equations in NumPy",
  differs=(
    "An image's targets are aggregated into its own mean feature; the authors pair the "
    "neighbors of each patch with the mean feature of another image of the batch, an "
    "error in the order of two axes.",
    "Each block of each example draws a size of its own; the authors draw one of "
    "target blocks and one of contexts for a batch.",
    "A fixed number of patches of each target block is predicted, drawn at random, and "
    "the context has a fixed number; the authors predict whole blocks, and cut "
    "contexts short, from below, to the smallest of a batch.",
    "Blocks may touch each edge of the grid; the authors' never reach the last row and "
    "the last column.",
  ),
)


class Aggregation(nn.Module):
  """Adds to tokens what their mean attends to among others, then an MLP.

  Attributes:
    heads: number of attention heads.
    options: width of the MLP, epsilon of the normalizations and type of the
      computation; the others are not read.
  """

  heads: int
  options: BlockOptions = BlockOptions()

  @nn.compact
  def __call__(self, tokens: Array, others: Array) -> Array:
    """[B, M, D] and [B, K, D] to [B, M, D]."""
    dtype, drawn = self.options.dtype, self.options.drawn
    query = tokens.mean(axis=1, keepdims=True)
    y = jnp.concatenate([query, others], axis=1)  # [B, 1 + K, D]
    y = norm_like(self, name="attention_norm")(y)
    attention = Attention(
      heads=self.heads,
      drawn=drawn.attention(to_others=True),
      dtype=dtype,
      name="attention",
    )
    tokens = tokens + attention(y[:, :1], y)
    ratio = self.options.mlp_ratio
    mlp = Mlp(ratio=ratio, drawn=drawn.inner, dtype=dtype, name="mlp")
    return tokens + mlp(norm_like(self, name="mlp_norm")(tokens))


class AggregationHead(nn.Module):
  """The light head that turns features into discriminative ones.

  Attributes:
    heads: see `Aggregation`.
    depth: number of blocks.
    options: see `Aggregation`.
  """

  heads: int
  depth: int = 2
  options: BlockOptions = BlockOptions()

  @nn.compact
  def __call__(self, tokens: Array, others: Array | None = None) -> Array:
    """Aggregates others [B, K, D], or tokens themselves, into tokens [B, M, D]."""
    for i in range(self.depth):
      block = Aggregation(heads=self.heads, options=self.options, name=f"block_{i}")
      tokens = block(tokens, tokens if others is None else others)
    return norm_like(self, name="norm")(tokens)


class DiscriminativeJointEmbedding(EncoderModel):
  """The network of DMT-JEPA (section 3 of the paper).

  Attributes:
    encoder: see `maskjax.models.JointEmbedding`.
    head: aggregates the context's features, and the neighbors' features into targets.
    predictor: see `maskjax.models.JointEmbedding`.
    num_neighbors: how many neighbors a target is aggregated from.
    window: side of the neighborhood from which they are chosen, in patches.
  """

  head: AggregationHead
  predictor: Decoder
  num_neighbors: int
  window: int

  def __call__(self, patches: Array, mask: Mask, blocks: Array | None = None) -> Array:
    """See `maskjax.models.JointEmbedding`."""
    context = self.head(self.encoder(patches, mask))
    return predict_blocks(self.predictor, context, mask, blocks)

  def targets(self, features: Array) -> Array:
    """Aggregates each patch's most similar neighbors into the image's mean feature.

    Args:
      features: normalized, of whole images, [B, N, D].

    Returns:
      [B, N, D].
    """
    batch, length, width = features.shape
    near = neighborhood(self.encoder.grid, self.window)
    chosen = similar_neighbors(features, near, self.num_neighbors)
    # [B, N, K, D] -> [B * N, K, D]
    others = gather(features, chosen).reshape(batch * length, -1, width)
    mean = jnp.repeat(features.mean(axis=1, keepdims=True), length, axis=0)
    return self.head(mean, others).reshape(features.shape)


def neighborhood(grid: tuple[int, ...], window: int) -> np.ndarray:
  """The other positions of the window around each position, wrapped at the edges.

  As in the authors' code: the left neighbor of a position in the first column is in the
  last one.

  Args:
    grid: rows and columns; N is their product.
    window: side of the window, at most that of the grid.

  Returns:
    int [N, window^2 - 1].

  Example:
    >>> neighborhood((4, 4), 3).tolist()[0]
    [15, 12, 13, 3, 1, 7, 4, 5]
  """
  offsets = grid_positions((window, window)) - window // 2
  # [N, 1, 2] + [window^2, 2] -> [N, window^2]
  around = (grid_positions(grid)[:, None] + offsets) % np.array(grid)
  row, column = np.moveaxis(around, -1, 0)
  ids = row * grid[1] + column
  others = ids != np.arange(len(ids))[:, None]
  return ids[others].reshape(len(ids), -1)


def similar_neighbors(features: Array, near: np.ndarray, count: int) -> Array:
  """The neighbors whose features have the largest cosines with a patch's own.

  Args:
    features: [B, N, D].
    near: the neighbors of each position, int [N, K].
    count: how many of them to choose.

  Returns:
    Their positions, int32 [B, N, count], the most similar first.

  Example:
    >>> features = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    >>> similar_neighbors(features, np.array([[1, 2], [0, 2], [0, 1]]), 1).tolist()
    [[[2], [2], [0]]]
  """
  features = features.astype(jnp.float32)
  cosines = jnp.einsum("bnd,bmd->bnm", features, features)
  # A patch's own length is the same for all of its neighbors.
  lengths = jnp.sqrt(jnp.square(features).sum(axis=-1))
  cosines = cosines / jnp.maximum(lengths, 1e-12)[:, None]
  index = jnp.broadcast_to(jnp.asarray(near), (len(features), *near.shape))
  _, best = jax.lax.top_k(jnp.take_along_axis(cosines, index, axis=2), count)
  return jnp.take_along_axis(index, best, axis=2).astype(jnp.int32)


def dmt_jepa(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  predictor: Mapping[str, Any] | None = None,
  num_neighbors: int = 4,
  window: int = 3,
  head_depth: int = 2,
  teacher: Mapping[str, Any] | str = "ema",
  num_targets: int = 4,
  target_scale: Sequence[float] = (0.15, 0.2),
  target_aspect: Sequence[float] = (0.75, 1.5),
  context_scale: Sequence[float] = (0.85, 1.0),
  context_ratio: float = 0.25,
  error: str = "smooth_l1",
  **network: Unpack[Network],
) -> BlockPrediction:
  """Makes DMT-JEPA from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; 384, 6 and the encoder's when None.
    num_neighbors: how many neighbors a target is aggregated from.
    window: side of the neighborhood from which they are chosen, in patches.
    head_depth: blocks of the heads that aggregate them.
    teacher: `ema` and its keywords, see `maskjax.objectives.teachers.ema`.
    num_targets: see `maskjax.systems.ijepa`, as all that follow.
    target_scale: smallest and largest area of a target block, as a share of the grid's.
    target_aspect: smallest and largest ratio of a target block's height to its width.
    context_scale: smallest and largest area of the square context block.
    context_ratio: share of the patches that is visible.
    error: `smooth_l1` or `squared`.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a window, a range of the masks or a teacher that does not fit;
      names it.

  Example:
    >>> dmt_jepa(image_size=28, patch_size=4, encoder="Ti").model.num_neighbors
    4
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  if not 1 < window <= min(patches.grid):
    raise UserError(
      f"window={window}: expected at least 2 and at most {min(patches.grid)}"
    )
  if not 0 < num_neighbors < window**2:
    raise UserError(
      f"num_neighbors={num_neighbors}: expected at least 1 and less than {window**2}, "
      "the patches of the window"
    )
  at_least_one(head_depth=head_depth)
  network = {"initialization": "normal", **network}
  vit, predicts = context_networks(
    patches, encoder=encoder, predictor=predictor, predictor_depth=6, **network
  )
  model = DiscriminativeJointEmbedding(
    encoder=vit,
    head=AggregationHead(heads=vit.heads, depth=head_depth, options=vit.options),
    predictor=predicts,
    num_neighbors=num_neighbors,
    window=window,
  )
  return block_prediction(
    model=model,
    patches=patches,
    teacher=teachers.build_ema(teacher, parts=("encoder", "head")),
    num_targets=num_targets,
    target_scale=target_scale,
    target_aspect=target_aspect,
    context_scale=context_scale,
    context_ratio=context_ratio,
    error=error,
    aggregates=True,
  )
