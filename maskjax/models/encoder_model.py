"""What networks around an encoder have in common."""

from typing import Any

from flax import linen as nn
from jax import Array

from maskjax.models.decoder import TokenDecoder
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.models.vit import VisionEncoder


class EncoderModel(nn.Module):
  """A network whose features are those of its encoder.

  Attributes:
    encoder: a `VisionEncoder`, or another module like it.
  """

  encoder: Any

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to what the encoder gives, [B, 1 + N, D]."""
    return self.encoder(patches)


def blocks_like(encoder: VisionEncoder, depth: int, **own: Any) -> Transformer:
  """Further blocks that are as an encoder's.

  Args:
    encoder: the encoder.
    depth: number of blocks.
    **own: fields of `Transformer` that only these have, for example `name`.
  """
  return Transformer(
    depth=depth,
    heads=encoder.heads,
    norm_epsilon=encoder.norm_epsilon,
    dtype=encoder.dtype,
    **encoder.options,
    **own,
  )


def norm_like(encoder: VisionEncoder | TokenDecoder, **own: Any) -> nn.LayerNorm:
  """A normalization that is as those of an encoder, or of a decoder.

  Args:
    encoder: it.
    **own: fields that only this one has, for example `name`.
  """
  return LayerNorm(epsilon=encoder.norm_epsilon, dtype=encoder.dtype, **own)
