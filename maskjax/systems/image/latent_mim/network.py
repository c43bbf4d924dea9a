"""The network of Latent MIM: a projector, and a decoder that begins with cues."""

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
from maskjax.models.transformer import LayerNorm, dense_like
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
  norm_epsilon: float = 1e-5
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
  """Predicts features by attention among masked patches, and to the visible ones.

  A masked patch begins as a mean of the visible features, weighted by how near their
  position embeddings are to its own, beside the mask token.

  Attributes:
    size: length T of a prediction.
  """

  size: int

  @nn.compact
  def __call__(self, features: Array, mask: Mask) -> Array:
    """Predicts masked patches.

    Args:
      features: of the class token and the visible patches, [B, 1 + V, E].
      mask: the mask under which they were encoded.

    Returns:
      float32 [B, M, T].
    """
    table = jnp.asarray(sincos(self.grid, self.width, spread=True), self.dtype)
    visible, masked = table[mask.visible_ids], table[mask.masked_ids]
    x = dense_like(self, self.width, name="embed")(features)
    class_token, mask_token = jnp.split(self.mask_tokens(2), 2, axis=1)
    queries = mask_token + visual_cues(masked, visible, x[:, 1:]) + masked
    class_token = jnp.broadcast_to(class_token, (len(x), 1, self.width))
    queries = jnp.concatenate([class_token, queries], axis=1)
    x = self.transform(
      queries,
      mask.masked_ids.shape[1],
      attends="both",
      context=jnp.concatenate([x[:, :1], x[:, 1:] + visible], axis=1),
    )
    return self.predict(x, self.size)


def visual_cues(masked: Array, visible: Array, features: Array) -> Array:
  """What is known of masked patches from the features around them.

  Args:
    masked: position embeddings of the masked patches, [B, M, D].
    visible: those of the visible ones, [B, V, D].
    features: of the visible patches, [B, V, D].

  Returns:
    [B, M, D].
  """
  scores = jnp.einsum(
    "bmd,bvd->bmv", masked, visible, preferred_element_type=jnp.float32
  )
  weights = jax.nn.softmax(scores * features.shape[-1] ** -0.5, axis=-1)
  return jnp.einsum("bmv,bvd->bmd", weights.astype(features.dtype), features)


class LatentMaskedModel(EncoderModel):
  """The network of Latent MIM (https://arxiv.org/abs/2407.15837, section 3).

  Attributes:
    encoder: sees visible patches only.
    projector: between the encoder and all that is compared.
    decoder: of projected features.
  """

  projector: NormedProjector
  decoder: CueDecoder

  def __call__(self, patches: Array, mask: Mask) -> tuple[Array, Array]:
    """Visible patches' features, [B, V, D], and predictions of masked ones, [B, M, D].

    Args:
      patches: [B, N, P].
      mask: which patches the encoder must not see.
    """
    features = self.project(patches, mask)
    return self.encoder.patch_tokens(features), self.decoder(features, mask)

  def project(self, patches: Array, mask: Mask) -> Array:
    """Projected features of visible patches, class token first: [B, 1 + V, D]."""
    return self.projector(self.encoder(patches, mask))
