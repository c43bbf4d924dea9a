"""Clusters of codes, and predictions of them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.models.vit import VisionEncoder
from maskjax.normalization import unit
from maskjax.tokens import places


class Clusters(nn.Module):
  """A linear layer that says how near codes are to clusters.

  Attributes:
    num_clusters: number of clusters K.
  """

  num_clusters: int

  @nn.compact
  def __call__(self, codes: Array) -> Array:
    """[B, N, D] to float32 logits [B, N, K]."""
    init = nn.initializers.normal(1.0)
    return nn.Dense(self.num_clusters, kernel_init=init, name="head")(unit(codes))


class CosineHead(nn.Module):
  """A linear layer from directions to clusters, whose own rows have learnt lengths.

  Attributes:
    num_clusters: number of clusters K.
  """

  num_clusters: int

  @nn.compact
  def __call__(self, codes: Array) -> Array:
    """[B, M, D] to float32 logits [B, M, K]."""
    shape = (codes.shape[-1], self.num_clusters)
    kernel = self.param("kernel", nn.initializers.truncated_normal(0.02), shape)
    length = self.param("scale", nn.initializers.ones, shape[1:])
    return unit(codes) @ (unit(kernel, axis=0) * length)


class Predictor(nn.Module):
  """Predicts each hidden place by itself, by attention to the visible codes alone.

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    norm_epsilon: added to the variance in layer normalisation.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  grid: tuple[int, int]
  width: int
  depth: int
  heads: int
  norm_epsilon: float = 1e-6
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, codes: Array, mask: Mask) -> Array:
    """Predicts hidden places: [B, R + V, E], registers first, to [B, M, D]."""
    at = jnp.asarray(places(self.grid))
    here, there = at[mask.visible_ids], at[mask.hidden_ids]
    registers = codes.shape[1] - here.shape[1]
    token = self.param("mask_token", nn.initializers.normal(0.02), (self.width,))
    x = jnp.broadcast_to(token.astype(self.dtype), (*there.shape[:2], self.width))
    x = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      attends="context",
      dtype=self.dtype,
      name="transformer",
      **self.options,
    )(
      x,
      context=codes,
      places=there,
      context_places=jnp.pad(here, ((0, 0), (registers, 0), (0, 0))),
    )[-1]
    return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)


class ClusterPredictor(nn.Module):
  """The network of CAPI (https://arxiv.org/abs/2502.08769, section 3).

  Attributes:
    encoder: sees the visible patches only; has rotary positions, and registers in place
      of a class token.
    predictor: sees their codes.
    head: turns predictions into logits of clusters.
  """

  encoder: VisionEncoder
  predictor: Predictor
  head: CosineHead

  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Predicts hidden patches' clusters: [B, N, P] to float32 logits [B, M, K]."""
    return self.head(self.predictor(self.encoder(patches, mask), mask))

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, R + N, D], registers first."""
    return self.encoder(patches)
