"""Language models that read from left to right."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.text.encoder import TextEncoder
from maskjax.tokens import Text


class CausalLM(nn.Module):
  """Tells tokens by those before them.

  Attributes:
    encoder: of the text; each token looks at itself and at what stands before it.
  """

  encoder: TextEncoder

  def setup(self) -> None:
    """Makes the last layer, which is not the table of tokens."""
    shape = (self.encoder.width, self.encoder.vocab_size)
    self.head = self.param("head", nn.initializers.normal(0.02), shape)

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits of the tokens at the places `ids`, by what is left of them.

    Args:
      text: [B, N].
      ids: int [B, M]; the first token of a row has nothing that tells it.

    Returns:
      float32 [B, M, V].
    """
    before = gather(self.encode(text), jnp.maximum(ids - 1, 0))
    dtype = self.encoder.dtype
    return jnp.einsum(
      "...d,dv->...v",
      before.astype(dtype),
      self.head.astype(dtype),
      preferred_element_type=jnp.float32,
    )

  def encode(self, text: Text) -> Array:
    """Codes of all tokens, each by itself and by those before it: [B, N, D]."""
    encoder = self.encoder
    inputs = encoder.block_inputs(text, causal=True)
    return encoder.finish(encoder.transformer(encoder.embed(text), **inputs)[-1])
