"""A masked encoder with two branches: for tokens, and for pixels."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import blocks_like, norm_like


class TokensAndPixels(EncoderModel):
  """The network of CCViT (https://arxiv.org/abs/2303.04664, figure 2).

  Tokens are predicted from the last block. Pixels are predicted by further blocks,
  from the patches of an earlier one and the class token of the last, which must
  therefore know the image as a whole.

  Attributes:
    encoder: with `masked_patches="token"`, `positions="relative"`, `final_norm=False`.
    num_tokens: number K of tokens.
    patch_dim: length P of a patch of pixels.
    early: after how many blocks the second branch takes the patches.
    branch_depth: blocks of the second branch.
  """

  num_tokens: int
  patch_dim: int
  early: int
  branch_depth: int

  @nn.compact
  def __call__(self, patches: Array, mask: Mask, asked: Mask) -> tuple[Array, Array]:
    """Predicts patches.

    Args:
      patches: [B, N, P].
      mask: where mask tokens stand.
      asked: what to predict, M patches of each image.

    Returns:
      Logits, float32 [B, M, K], and pixels, float32 [B, M, P].
    """
    encoder = self.encoder
    outputs = encoder.every_block(patches, mask)
    last, early = outputs[-1], outputs[self.early - 1]
    x = asked.take_masked(encoder.patch_tokens(norm_like(encoder, name="norm")(last)))
    tokens = Dense(self.num_tokens, dtype=encoder.dtype, name="token_head")(x)
    x = jnp.concatenate([last[:, :1], early[:, 1:]], axis=1)
    branch = blocks_like(encoder, self.branch_depth, name="branch")
    x = branch(x, bias=encoder.relative())[-1]
    x = asked.take_masked(
      encoder.patch_tokens(norm_like(encoder, name="pixel_norm")(x))
    )
    pixels = Dense(self.patch_dim, dtype=encoder.dtype, name="pixel_head")(x)
    return tokens.astype(jnp.float32), pixels.astype(jnp.float32)
