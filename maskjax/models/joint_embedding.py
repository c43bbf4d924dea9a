"""Joint-embedding predictive architectures: features predicted from other features."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.masking import Mask
from maskjax.models.decoder import Decoder
from maskjax.models.encoder_model import EncoderModel


class JointEmbedding(EncoderModel):
  """The network of I-JEPA (https://arxiv.org/abs/2301.08243, section 3).

  Attributes:
    encoder: encodes the context only; has no class token.
    predictor: its input is the context's features, and mask tokens at the positions of
      one target block.
  """

  predictor: Decoder

  def __call__(self, patches: Array, mask: Mask, blocks: Array | None = None) -> Array:
    """Predicts the features of target blocks, each block by itself.

    Args:
      patches: [B, N, P].
      mask: masks all but the context.
      blocks: positions of the blocks' patches, int [B, T, K]; one block of all masked
        patches when None.

    Returns:
      float32 [B, T, K, D].
    """
    return predict_blocks(self.predictor, self.encoder(patches, mask), mask, blocks)


def predict_blocks(
  predictor: Decoder, context: Array, mask: Mask, blocks: Array | None
) -> Array:
  """Predicts target blocks from the features of a context, each block by itself.

  Args:
    predictor: see `JointEmbedding`.
    context: features of the visible patches, [B, V, E].
    mask: see `JointEmbedding`.
    blocks: see `JointEmbedding`.

  Returns:
    float32 [B, T, K, D].
  """
  if blocks is None:
    blocks = mask.masked_ids[:, None]
  count = blocks.shape[1]
  # [B, ...] -> [B * T, ...]
  context, each = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), (context, mask))
  # A decoder predicts the masked patches of a mask: here those of one block.
  each = dataclasses.replace(each, masked_ids=blocks.reshape(-1, blocks.shape[-1]))
  # [B * T, K, D] -> [B, T, K, D]
  return predictor(context, each, False).reshape(*blocks.shape, -1)
