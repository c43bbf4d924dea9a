"""The network of CAPI: rotary positions of its own, clusters, and a predictor."""

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models import CosineHead
from maskjax.models.decoder import TokenDecoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.rotary import BASE, Rotary
from maskjax.normalization import unit
from maskjax.tokens import grid_positions

# Turns of the fastest and the slowest pair of channels from one edge of an image to the
# other.
MOST_TURNS, FEWEST_TURNS = 7.0, 7e-4


def unit_positions(grid: tuple[int, ...]) -> np.ndarray:
  """The coordinates of each patch, from 0 at one edge of an image to 1 at the other.

  Args:
    grid: rows and columns of patches.

  Returns:
    float32 [N, 2].

  Example:
    >>> unit_positions((2, 3))[:3].tolist()
    [[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]]
  """
  return (grid_positions(grid) / np.maximum(np.array(grid) - 1, 1)).astype(np.float32)


def on_the_edge(positions: Array | np.ndarray, count: int) -> Array:
  """Puts positions evenly along the edge of the box around others, before these.

  Args:
    positions: [..., N, 2].
    count: how many positions the edge gets; the first is the box's first corner, and
      the way goes down the first column first.

  Returns:
    [..., count + N, 2].

  Example:
    >>> on_the_edge(jnp.array([[0.0, 0.0], [1.0, 4.0]]), 4)[:4].tolist()
    [[0.0, 0.0], [1.0, 0.0], [1.0, 4.0], [0.0, 4.0]]
  """
  low = positions.min(axis=-2, keepdims=True)
  high = positions.max(axis=-2, keepdims=True)
  side, along = np.divmod(4 * np.arange(count) / max(count, 1), 1)
  zero, one = np.zeros(count), np.ones(count)
  down = np.choose(side.astype(int), [along, one, 1 - along, zero])
  right = np.choose(side.astype(int), [zero, along, one, 1 - along])
  edge = low + np.stack([down, right], axis=-1).astype(np.float32) * (high - low)
  return jnp.concatenate([edge, positions], axis=-2)


def rotate_halves(x: Array, positions: Array, base: Array | float = BASE) -> Array:
  """Mixes the first half of the channels with the second, as the authors' code does.

  Channel i goes with channel i + half. The first of the two turns by the row, and the
  second by the column: of a position with both alike they turn as one.

  Args:
    x: [B, H, N, D], D a multiple of 4.
    positions: from 0 to 1, [B, N, 2] or [N, 2].
    base: is not read; the frequencies are CAPI's own.

  Returns:
    [B, H, N, D].

  Example:
    >>> x = jnp.ones((1, 1, 1, 4))
    >>> [f"{y:.2f}" for y in rotate_halves(x, jnp.array([[0.0, 0.25]]))[0, 0, 0]]
    ['1.00', '1.00', '-1.00', '-1.00']
  """
  del base
  ratio = FEWEST_TURNS / MOST_TURNS
  turns = MOST_TURNS * ratio ** np.linspace(0, 1, x.shape[-1] // 4)
  # Each frequency twice: [D / 2]
  frequencies = np.tile(2 * math.pi * turns, 2).astype(np.float32)
  # [(B,) N, 2] -> [(B,) 1, N, 2, D / 2]
  angles = jnp.expand_dims(positions[..., None] * frequencies, -4)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  by_row = a * cos[..., 0, :] - b * sin[..., 0, :]
  by_column = b * cos[..., 1, :] + a * sin[..., 1, :]
  return jnp.concatenate([by_row, by_column], axis=-1).astype(x.dtype)


ROTARY = Rotary(positions=unit_positions, first=on_the_edge, rotate=rotate_halves)


class Clusters(nn.Module):
  """A linear layer from directions of features to logits of clusters.

  Attributes:
    num_clusters: number of clusters K.
  """

  num_clusters: int

  @nn.compact
  def __call__(self, features: Array) -> Array:
    """[B, N, D] to float32 logits [B, N, K]."""
    init = nn.initializers.normal(1.0)
    return nn.Dense(self.num_clusters, kernel_init=init, name="head")(unit(features))


class Predictor(TokenDecoder):
  """Predicts each masked patch by itself, by attention to visible features alone."""

  @nn.compact
  def __call__(self, features: Array, mask: Mask) -> Array:
    """Predicts masked patches: [B, R + V, E], registers first, to [B, M, D]."""
    rotary = self.options.rotary
    positions = jnp.asarray(rotary.positions(self.grid))
    visible, masked = positions[mask.visible_ids], positions[mask.masked_ids]
    registers = features.shape[1] - visible.shape[1]
    x = jnp.broadcast_to(self.mask_tokens(), (*masked.shape[:2], self.width))
    return self.transform(
      x,
      attends="context",
      context=features,
      positions=masked,
      context_positions=rotary.first(visible, registers),
    )


class ClusterPredictor(EncoderModel):
  """The network of CAPI (https://arxiv.org/abs/2502.08769, section 3).

  Attributes:
    encoder: sees the visible patches only; has rotary positions, and registers in place
      of a class token.
    predictor: attends to its features.
    head: from what the predictor gives to logits of clusters.
  """

  predictor: Predictor
  head: CosineHead

  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Predicts masked patches' clusters: [B, N, P] to float32 logits [B, M, K]."""
    return self.head(self.predictor(self.encoder(patches, mask), mask))
