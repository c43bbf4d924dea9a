"""Joint-embedding predictive architectures: codes are predicted from other codes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask, gather
from maskjax.models.attention import Attention
from maskjax.models.decoder import Decoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import LayerNorm, Mlp
from maskjax.tokens import grid_positions


class JointEmbedding(EncoderModel):
  """The network of I-JEPA (https://arxiv.org/abs/2301.08243, section 3).

  Attributes:
    encoder: sees the context only; has no class token.
    predictor: sees its codes and mask tokens at the places of one block.
  """

  predictor: Decoder

  def __call__(self, patches: Array, mask: Mask, blocks: Array | None = None) -> Array:
    """Predicts the codes of blocks, each by itself.

    Args:
      patches: [B, N, P].
      mask: masks all but the context.
      blocks: places of the blocks' patches, int [B, T, K]; one block of all that is
        masked when None.

    Returns:
      float32 [B, T, K, D].
    """
    return predict_blocks(self.predictor, self.encoder(patches, mask), mask, blocks)

  def targets(self, codes: Array) -> Array:
    """What is to be predicted: normalized codes of whole images, as they are."""
    return codes


def predict_blocks(
  predictor: Decoder, codes: Array, mask: Mask, blocks: Array | None
) -> Array:
  """Asks a predictor for one block after the other, see `JointEmbedding`."""
  if blocks is None:
    blocks = mask.masked_ids[:, None]
  count = blocks.shape[1]
  codes, each = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), (codes, mask))
  # A decoder predicts a mask's masked places: here those of one block.
  each = dataclasses.replace(each, masked_ids=blocks.reshape(-1, blocks.shape[-1]))
  # [B * T, K, D] -> [B, T, K, D]
  return predictor(codes, each, False).reshape(*blocks.shape, -1)


class Aggregation(nn.Module):
  """Adds to tokens what their mean draws from others, then an MLP.

  Attributes:
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLP over the width of the tokens.
    norm_epsilon: added to the variance in layer normalization.
    dtype: type of the computation.
  """

  heads: int
  mlp_ratio: float = 4.0
  norm_epsilon: float = 1e-6
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, tokens: Array, others: Array) -> Array:
    """[B, M, D] and [B, K, D] to [B, M, D]."""
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=self.dtype)
    asking = tokens.mean(axis=1, keepdims=True)
    y = norm(name="attention_norm")(jnp.concatenate([asking, others], axis=1))
    attention = Attention(heads=self.heads, dtype=self.dtype, name="attention")
    tokens = tokens + attention(y[:, :1], y)
    mlp = Mlp(ratio=self.mlp_ratio, dtype=self.dtype, name="mlp")
    return tokens + mlp(norm(name="mlp_norm")(tokens))


class AggregationHead(nn.Module):
  """The light head that turns codes into discriminative ones.

  Attributes:
    heads: see `Aggregation`.
    depth: number of blocks.
    mlp_ratio: see `Aggregation`.
    norm_epsilon: see `Aggregation`.
    dtype: type of the computation.
  """

  heads: int
  depth: int = 2
  mlp_ratio: float = 4.0
  norm_epsilon: float = 1e-6
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, tokens: Array, others: Array | None = None) -> Array:
    """Aggregates others [B, K, D], or tokens themselves, into tokens [B, M, D]."""
    for i in range(self.depth):
      block = Aggregation(
        heads=self.heads,
        mlp_ratio=self.mlp_ratio,
        norm_epsilon=self.norm_epsilon,
        dtype=self.dtype,
        name=f"block_{i}",
      )
      tokens = block(tokens, tokens if others is None else others)
    return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(tokens)


class DiscriminativeJointEmbedding(EncoderModel):
  """The network of DMT-JEPA (https://arxiv.org/abs/2405.17995, section 3).

  Attributes:
    encoder: see `JointEmbedding`.
    head: aggregates the context's codes, and neighbors' codes into targets.
    predictor: see `JointEmbedding`.
    num_neighbors: how many neighbors a target is made of.
    window: side of the neighborhood from which they come, in patches.
  """

  head: AggregationHead
  predictor: Decoder
  num_neighbors: int
  window: int

  def __call__(self, patches: Array, mask: Mask, blocks: Array | None = None) -> Array:
    """See `JointEmbedding`."""
    codes = self.head(self.encoder(patches, mask))
    return predict_blocks(self.predictor, codes, mask, blocks)

  def targets(self, codes: Array) -> Array:
    """What the image's mean code draws from each patch's most similar neighbors.

    Args:
      codes: normalized, of whole images, [B, N, D].

    Returns:
      [B, N, D].
    """
    batch, length, width = codes.shape
    near = similar_neighbors(
      codes, neighborhood(self.encoder.grid, self.window), self.num_neighbors
    )
    # [B, N, K, D] -> [B * N, K, D]
    others = gather(codes, near).reshape(batch * length, -1, width)
    mean = jnp.repeat(codes.mean(axis=1, keepdims=True), length, axis=0)
    return self.head(mean, others).reshape(codes.shape)


def neighborhood(grid: tuple[int, int], window: int) -> np.ndarray:
  """The other places of the window around each place, moved inside at the edges.

  Args:
    grid: rows and columns; N is their product.
    window: side of the window, at most that of the grid.

  Returns:
    int [N, window^2 - 1].

  Example:
    >>> neighborhood((2, 3), 2).tolist()[0]
    [1, 3, 4]
  """
  top_left = np.clip(grid_positions(grid) - window // 2, 0, np.array(grid) - window)
  # [N, 1, 2] + [window^2, 2] -> [N, window^2]
  row, column = np.moveaxis(top_left[:, None] + grid_positions((window, window)), -1, 0)
  ids = row * grid[1] + column
  others = ids != np.arange(len(ids))[:, None]
  return ids[others].reshape(len(ids), -1)


def similar_neighbors(codes: Array, near: np.ndarray, count: int) -> Array:
  """The neighbors whose codes have the largest cosines with a patch's own.

  Args:
    codes: [B, N, D].
    near: the neighbors of each place, int [N, K].
    count: how many of them to take.

  Returns:
    Their places, int32 [B, N, count], the most similar first.

  Example:
    >>> codes = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    >>> similar_neighbors(codes, np.array([[1, 2], [0, 2], [0, 1]]), 1).tolist()
    [[[2], [2], [0]]]
  """
  codes = codes.astype(jnp.float32)
  cosines = jnp.einsum("bnd,bmd->bnm", codes, codes)
  # A patch's own length is the same for all of its neighbors.
  lengths = jnp.sqrt(jnp.square(codes).sum(axis=-1))
  cosines = cosines / jnp.maximum(lengths, 1e-12)[:, None]
  index = jnp.broadcast_to(jnp.asarray(near), (len(codes), *near.shape))
  _, best = jax.lax.top_k(jnp.take_along_axis(cosines, index, axis=2), count)
  return jnp.take_along_axis(index, best, axis=2).astype(jnp.int32)
