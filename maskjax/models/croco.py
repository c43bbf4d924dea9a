"""Completion of an image with the help of another view of the scene."""

from jax import Array

from maskjax.masking import Mask
from maskjax.models.decoder import Decoder
from maskjax.models.encoder_model import EncoderModel


class CrossViewAutoencoder(EncoderModel):
  """The network of CroCo (https://arxiv.org/abs/2210.10716, figure 2).

  Attributes:
    encoder: sees the visible patches of one image, and the whole of the other; has no
      class token.
    decoder: sees both.
  """

  decoder: Decoder

  def __call__(
    self, patches: Array, mask: Mask, view: Array, visible_too: bool = False
  ) -> Array:
    """Predicts masked patches of the first image.

    Args:
      patches: [B, N, P].
      mask: which of them the encoder must not see.
      view: the other image's patches, [B, N, P].
      visible_too: predict the visible patches as well.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`.
    """
    encoded = self.encoder(patches, mask)
    return self.decoder(encoded, mask, visible_too, self.encoder(view))
