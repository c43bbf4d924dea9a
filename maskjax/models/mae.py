"""The masked autoencoder: an encoder of what is visible and a light decoder."""

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
