"""The network of VQ-KD: vectors of patches, and a teacher's features from codes."""

from typing import cast

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.initialization import LayerInit
from maskjax.models.vit import VisionEncoder
from maskjax.normalization import unit


class TanhMlp(nn.Module):
  """Two dense layers with a hyperbolic tangent between them.

  Attributes:
    size: channels of the output; the hidden layer is as wide as the input.
    drawn: how the layers are, at first.
    dtype: type of the computation.
  """

  size: int
  drawn: LayerInit = LayerInit()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to float32 [B, N, size]."""
    fields = {**self.drawn._asdict(), "dtype": self.dtype}
    x = jnp.tanh(Dense(x.shape[-1], **fields, name="up")(x))
    return Dense(self.size, **fields, name="down")(x).astype(jnp.float32)


class CodeAutoencoder(EncoderModel):
  """The network of VQ-KD (https://arxiv.org/abs/2208.06366, section 2.2).

  Attributes:
    encoder: of whole images.
    decoder: of a codebook vector for each patch.
    code_dim: channels C of a codebook vector.
    size: channels T of the teacher's features.
  """

  decoder: VisionEncoder
  code_dim: int
  size: int

  def setup(self) -> None:
    """Makes both heads; that of vectors is float32, since codes must not flip."""
    drawn = self.decoder.options.drawn.inner
    self.to_code = TanhMlp(self.code_dim, drawn=drawn)
    self.to_teacher = TanhMlp(self.size, drawn=drawn, dtype=self.decoder.dtype)

  def __call__(self, patches: Array) -> Array:
    """As if every vector were in the codebook: [B, N, P] to float32 [B, N, T]."""
    return self.decode(self.vectors(patches))

  def vectors(self, patches: Array) -> Array:
    """What is compared with the codebook: [B, N, P] to float32 [B, N, C], length 1."""
    tokens = self.encoder.patch_tokens(self.encode(patches))
    return unit(self.to_code(tokens))

  def decode(self, vectors: Array) -> Array:
    """Predicts the teacher's features: [B, N, C] to float32 [B, N, T]."""
    tokens = self.decoder.patch_tokens(self.decoder(vectors))
    return cast(Array, self.to_teacher(tokens))
