"""Codes of masked patches, predicted by attention to the codes of visible ones."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.decoder import TokenDecoder
from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.gelu import gelu
from maskjax.models.transformer import LayerNorm
from maskjax.tokens import sincos


class NormedProjector(nn.Module):
  """Dense layers without biases, each followed by a layer normalization.

  Attributes:
    hidden: width between the layers.
    depth: number of layers.
    norm_epsilon: added to the variance in layer normalization.
    dtype: type of the computation.
  """

  hidden: int = 4096
  depth: int = 3
  norm_epsilon: float = 1e-6
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to [B, N, D]."""
    width = x.shape[-1]
    for i in range(self.depth):
      last = i == self.depth - 1
      dense = Dense(
        width if last else self.hidden,
        use_bias=False,
        dtype=self.dtype,
        name=f"dense_{i}",
      )
      norm = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=f"norm_{i}")
      x = norm(dense(x))
      x = x if last else gelu(x)
    return x


class CueDecoder(TokenDecoder, kw_only=True):
  """Predicts codes by attention among masked places, and from them to visible codes.

  A masked place begins as a mean of the visible codes, weighted by how near they are in
  position embedding, beside the mask token.

  Attributes:
    size: length T of a prediction.
  """

  size: int

  @nn.compact
  def __call__(self, codes: Array, mask: Mask) -> Array:
    """Predicts masked codes: [B, 1 + V, E], class token first, to float32 [B, M, T]."""
    table = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    here, there = table[mask.visible_ids], table[mask.masked_ids]
    x = Dense(self.width, dtype=self.dtype, name="embed")(codes)
    class_token, mask_token = jnp.split(self.mask_tokens(2), 2, axis=1)
    asking = mask_token + visual_cues(there, here, x[:, 1:]) + there
    class_token = jnp.broadcast_to(class_token, (len(x), 1, self.width))
    asking = jnp.concatenate([class_token, asking], axis=1)
    x = self.transform(
      asking,
      mask.masked_ids.shape[1],
      attends="both",
      context=jnp.concatenate([x[:, :1], x[:, 1:] + here], axis=1),
    )
    return self.predict(x, self.size)


def visual_cues(there: Array, here: Array, codes: Array) -> Array:
  """What is known of masked places by the codes around them.

  Args:
    there: position embeddings of the masked places, [B, M, D].
    here: those of the visible ones, [B, V, D].
    codes: of the visible patches, [B, V, D].

  Returns:
    [B, M, D].
  """
  scores = jnp.einsum("bmd,bvd->bmv", there, here, preferred_element_type=jnp.float32)
  weights = jax.nn.softmax(scores * codes.shape[-1] ** -0.5, axis=-1)
  return jnp.einsum("bmv,bvd->bmd", weights.astype(codes.dtype), codes)


class LatentMaskedModel(EncoderModel):
  """The network of Latent MIM (https://arxiv.org/abs/2407.15837, section 3).

  Attributes:
    encoder: sees visible patches only.
    projector: between the encoder and all that is compared.
    decoder: sees projected codes.
  """

  projector: NormedProjector
  decoder: CueDecoder

  def __call__(self, patches: Array, mask: Mask) -> tuple[Array, Array]:
    """The visible patches' codes, [B, V, D], and predictions of masked ones, [B, M, D].

    Args:
      patches: [B, N, P].
      mask: which patches the encoder must not see.
    """
    codes = self.codes(patches, mask)
    return self.encoder.patch_tokens(codes), self.decoder(codes, mask)

  def codes(self, patches: Array, mask: Mask) -> Array:
    """Projected codes of visible patches, the class token's first: [B, 1 + V, D]."""
    return self.projector(self.encoder(patches, mask))
