"""The base of networks around an encoder."""

from typing import Any

from flax import linen as nn
from jax import Array


class EncoderModel(nn.Module):
  """A network whose features are those of its encoder.

  Attributes:
    encoder: a `VisionEncoder`, or another module like it.
  """

  encoder: Any

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to the encoder's features, [B, 1 + N, D]."""
    return self.encoder(patches)
