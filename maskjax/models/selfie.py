"""The network of Selfie."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models.block_options import BlockOptions
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import LayerNorm, Transformer

POSITIONS = ("each", "rows_columns")


class PatchChooser(EncoderModel):
  """Says which of the masked patches belongs to which masked place.

  A convolutional network makes one vector of each patch, by itself. Attention pools
  those of visible patches into one; with the embedding of a place added, it is compared
  with those of masked patches (https://arxiv.org/abs/1906.02940, section 3).

  Attributes:
    encoder: the patch processing network, with D channels.
    depth: number of blocks of the attention pooling.
    heads: number of its attention heads.
    positions: `each`, an embedding for each place; or `rows_columns`, the sum of one
      for its row and one for its column.
    options: of the blocks of the pooling.
  """

  depth: int
  heads: int
  positions: str = "rows_columns"
  options: BlockOptions = BlockOptions()

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Compares places with patches.

    Args:
      patches: [B, N, P].
      mask: whose masked patches are asked for.

    Returns:
      float32 logits [B, M, M]: of each masked place, in order, how well each masked
      patch, in order, fits there.
    """
    dtype = self.encoder.dtype
    vectors = self.encoder.each(patches)
    width = vectors.shape[-1]
    places = self._places(width).astype(dtype)
    visible = mask.take_visible(vectors) + places[mask.visible_ids]
    query = self.param("query", nn.initializers.normal(0.02), (width,)).astype(dtype)
    query = jnp.broadcast_to(query, (len(visible), 1, width))
    pooled = Transformer(
      depth=self.depth, heads=self.heads, options=self.options, name="pooling"
    )(jnp.concatenate([visible, query], axis=1), 1)[-1]
    pooled = LayerNorm(dtype=dtype, name="norm")(pooled)  # [B, 1, D]
    asked = pooled + places[mask.masked_ids]
    return jnp.einsum(
      "bmd,bkd->bmk",
      asked,
      mask.take_masked(vectors),
      preferred_element_type=jnp.float32,
    )

  def _places(self, width: int) -> Array:
    """Embeddings of all places: [N, width]."""
    rows, columns = self.encoder.grid
    init = nn.initializers.normal(0.02)
    if self.positions == "each":
      return self.param("positions", init, (rows * columns, width))
    of_rows = self.param("rows", init, (rows, 1, width))
    of_columns = self.param("columns", init, (1, columns, width))
    return (of_rows + of_columns).reshape(-1, width)
