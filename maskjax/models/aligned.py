"""Networks whose blocks are to say what the blocks of a teacher say."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.decoder import Decoder
from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.gelu import gelu
from maskjax.models.transformer import LayerNorm
from maskjax.models.vit import VisionEncoder


class AlignedEncoder(nn.Module):
  """An encoder of visible patches, and MaskAlign's dynamic alignment on top.

  For each of the teacher's last blocks, learned weights mix what all blocks of the
  encoder say, and a linear layer brings it to the teacher's channels
  (https://arxiv.org/abs/2211.08887, section 3.3).

  Attributes:
    encoder: without a last normalization.
    size: channels T of the teacher.
    teacher_depth: number of the teacher's blocks.
    levels: how many of them, the last ones, are aligned: K.
  """

  encoder: VisionEncoder
  size: int
  teacher_depth: int
  levels: int

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Says what the teacher might of visible patches [B, N, P].

    Returns:
      float32 [K, B, 1 + V, T], the class token first where there is one.
    """
    tokens = jnp.stack(self.encoder.every_block(patches, mask))  # [L, B, 1 + V, D]
    weights = self.param("weights", self.first_weights)
    mixed = jnp.einsum("kl,lbnd->kbnd", weights.astype(tokens.dtype), tokens)
    dtype = self.encoder.dtype
    heads = [
      Dense(self.size, dtype=dtype, name=f"head_{k}")(mixed[k])
      for k in range(self.levels)
    ]
    return jnp.stack(heads).astype(jnp.float32)

  def first_weights(self, key: Array) -> Array:
    """Each block for its like, if there are as many; else all alike: [K, L]."""
    del key
    depth = self.encoder.depth
    if depth != self.teacher_depth:
      return jnp.full((self.levels, depth), 1 / depth)
    return (jnp.eye(depth) + 0.01)[-self.levels :]

  @nn.compact
  def encode(self, patches: Array) -> Array:
    """Encodes whole images, each token normalized: [B, N, P] to [B, 1 + N, D]."""
    norm = LayerNorm(
      epsilon=self.encoder.norm_epsilon,
      use_bias=False,
      use_scale=False,
      dtype=self.encoder.dtype,
    )
    return norm(self.encoder(patches))


class Projector(nn.Module):
  """Brings tokens to another width by dense layers with GELUs between them.

  Attributes:
    size: channels T of the result, and of hidden layers.
    depth: number of layers.
    dtype: type of the computation.
  """

  size: int
  depth: int = 1
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to [B, N, T]."""
    for i in range(self.depth):
      x = gelu(x) if i else x
      x = Dense(self.size, dtype=self.dtype, name=f"dense_{i}")(x)
    return x


class AlignedAutoencoder(EncoderModel):
  """MAE's network, one block of whose encoder is to say what a teacher's block says.

  As DMAE has it (https://arxiv.org/abs/2208.12256, section 3).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees their codes and mask tokens.
    projector: brings the block's tokens to the teacher's channels.
    layer: the block's number, from 1.
  """

  decoder: Decoder
  projector: Projector
  layer: int

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, P], see `Decoder`."""
    return self.predict_and_project(patches, mask, visible_too)[0]

  def predict_and_project(
    self, patches: Array, mask: Mask, visible_too: bool = False
  ) -> tuple[Array, Array]:
    """Predictions as `__call__` gives them, and the block's tokens [B, 1 + V, T]."""
    tokens = self.encoder.every_block(patches, mask)
    predictions = self.decoder(tokens[-1], mask, visible_too)
    return predictions, self.projector(tokens[self.layer - 1])
