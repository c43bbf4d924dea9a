"""The masked autoencoder: an encoder of what is visible and a light decoder."""

import jax.numpy as jnp
from jax import Array

from maskjax.masking import Mask
from maskjax.models.decoder import Decoder
from maskjax.models.encoder_model import EncoderModel


class MaskedAutoencoder(EncoderModel):
  """The network of MAE (https://arxiv.org/abs/2111.06377, section 3).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees their features and mask tokens.
  """

  decoder: Decoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, P], see `Decoder`."""
    return self.decoder(self.encoder(patches, mask), mask, visible_too)


class MiningAutoencoder(EncoderModel):
  """MAE's network with a second decoder, which predicts the errors of the first.

  As HPM has it (https://arxiv.org/abs/2304.05919, section 3.2).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees their features and mask tokens, and predicts the patches.
    predictor: sees the same, and predicts one number a patch, the larger the harder
      the patch is.
  """

  decoder: Decoder
  predictor: Decoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, P], see `Decoder`."""
    return self.decoder(self.encoder(patches, mask), mask, visible_too)

  def with_difficulty(self, patches: Array, mask: Mask) -> tuple[Array, Array]:
    """Predicts masked patches, and how hard they are: float32 [B, M, P] and [B, M]."""
    tokens = self.encoder(patches, mask)
    hard = self.predictor(tokens, mask, False)
    return self.decoder(tokens, mask, False), hard[..., 0]

  def difficulty(self, patches: Array) -> Array:
    """Says of a whole image how hard each patch would be: float32 [B, N]."""
    nothing = Mask.exactly(jnp.zeros(patches.shape[:2], bool), num_masked=0)
    return self.predictor(self.encoder(patches), nothing, True)[..., 0]
