"""Decoders: predictions of masked patches from the features of visible ones."""

from collections.abc import Mapping
from typing import Any, cast

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.block_options import BlockOptions
from maskjax.models.checks import check_shape
from maskjax.models.transformer import Transformer, dense_like, norm_like
from maskjax.models.vit import VisionEncoder
from maskjax.tokens import sincos


class TokenDecoder(nn.Module):
  """A base of decoders; each adds its `__call__`.

  Attributes:
    grid: sides of the grid of patches, as many as it has axes; N is their product.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    head: how `predict`'s layer is drawn, a role of
      `maskjax.models.initialization.Initialization`.
    final_affine: give the last normalization a scale and a bias.
    options: of the blocks; the last normalization has the same.
  """

  grid: tuple[int, ...]
  width: int
  depth: int
  heads: int
  head: str = "head"
  final_affine: bool = True
  options: BlockOptions = BlockOptions()

  @property
  def dtype(self) -> DTypeLike:
    """Type of the computation."""
    return self.options.dtype

  @property
  def norm_epsilon(self) -> float:
    """Added to the variance in layer normalization."""
    return self.options.norm_epsilon

  def mask_tokens(self, count: int = 1) -> Array:
    """Learned tokens, [1, count, D]."""
    init = self.options.drawn.mask_token
    return self.param("mask_token", init, (1, count, self.width)).astype(self.dtype)

  def joined(self, x: Array, mask: Mask, table: Array) -> Array:
    """Adds positions, and puts mask tokens after what is visible.

    Attention does not depend on the order of tokens: the masked ones stand last, and
    no token need be put back in order.

    Args:
      x: embedded visible tokens, [B, 1 + V, D], or [B, V, D] without a class token.
      mask: the mask under which they were encoded.
      table: embeddings of all positions, [N, D].

    Returns:
      [B, 1 + V + M, D], or without a class token [B, V + M, D].
    """
    first = x.shape[1] - mask.visible_ids.shape[1]
    tokens = [
      x[:, :first],
      x[:, first:] + table[mask.visible_ids],
      self.mask_tokens() + table[mask.masked_ids],
    ]
    return jnp.concatenate(tokens, axis=1)

  def transform(
    self,
    x: Array,
    num_queries: int | None = None,
    *,
    attends: str = "self",
    **inputs: Any,
  ) -> Array:
    """Runs the blocks, and normalizes.

    Args:
      x: tokens, [B, L, D].
      num_queries: how many of them, the last ones, to give; all when None.
      attends: to what, see `Transformer`.
      **inputs: `context` and positions, see there.

    Returns:
      [B, num_queries, D].
    """
    blocks = Transformer(
      depth=self.depth,
      heads=self.heads,
      options=self.options,
      attends=attends,
      name="transformer",
    )
    x = blocks(x, num_queries, **inputs)[-1]
    norm = norm_like(self, affine=self.final_affine, name="norm")
    return cast(Array, norm(x))

  def predict(self, x: Array, size: int) -> Array:
    """A linear layer: [B, M, D] to float32 [B, M, size]."""
    return cast(Array, dense_like(self, size, self.head, name="head")(x)).astype(
      jnp.float32
    )

  def decoded(
    self, x: Array, mask: Mask, visible_too: bool, size: int, **inputs: Any
  ) -> Array:
    """Predicts from tokens as `joined` gives them.

    Args:
      x: visible tokens, then masked ones.
      mask: see `joined`.
      visible_too: predict the visible patches as well.
      size: length P of a prediction.
      **inputs: see `transform`.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`, in order of position.
    """
    num_queries = mask.masked.shape[1] if visible_too else mask.masked_ids.shape[1]
    x = self.predict(self.transform(x, num_queries, **inputs), size)
    if visible_too:
      num_visible = mask.visible_ids.shape[1]
      x = mask.restore(x[:, :num_visible], x[:, num_visible:])
    return x


class Decoder(TokenDecoder, kw_only=True):
  """Predicts patches from encoded visible tokens and mask tokens.

  Attributes:
    patch_dim: length P of a prediction.
    positions: `sincos`, fixed and added to the tokens, or `rotary`.
  """

  patch_dim: int
  positions: str = "sincos"

  @nn.compact
  def __call__(
    self, encoded: Array, mask: Mask, visible_too: bool, view: Array | None = None
  ) -> Array:
    """Predicts masked patches, or all.

    Args:
      encoded: [B, 1 + V, E] from the encoder, or [B, V, E] of one without a class
        token.
      mask: the mask under which it was encoded.
      visible_too: predict the visible patches as well.
      view: [B, N, E], another image's features, to which each block attends between
        its attention to these tokens and its MLP.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`, in order of position.
    """
    if self.positions == "sincos":
      table = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    else:
      table = jnp.zeros((mask.masked.shape[1], self.width), self.dtype)
    embed = dense_like(self, self.width, name="embed")
    x = self.joined(embed(encoded), mask, table)
    first = encoded.shape[1] - mask.visible_ids.shape[1]
    inputs: dict[str, Any] = {}
    if self.positions == "rotary":
      rotary = self.options.rotary
      positions = jnp.asarray(rotary.positions(self.grid))
      ids = jnp.concatenate([mask.visible_ids, mask.masked_ids], axis=1)
      # [B, 1 + V + M, A]: the class token, where there is one, stands at 0.
      inputs["positions"] = rotary.first(positions[ids], first)
      inputs["context_positions"] = None if view is None else positions
    if view is not None:
      inputs["context"] = embed(view) + table
    attends = "self" if view is None else "both"
    return self.decoded(x, mask, visible_too, self.patch_dim, attends=attends, **inputs)


def decoder_of(
  encoder: VisionEncoder,
  shape: Mapping[str, Any] | None,
  *,
  kind: type[TokenDecoder] = Decoder,
  role: str = "decoder",
  **own: Any,
) -> Any:
  """Makes a decoder that agrees with an encoder in all but its shape.

  Args:
    encoder: whose features it is to decode.
    shape: `width`, `depth` and `heads`; 512, 8 and 16 where left out.
    kind: a `TokenDecoder`.
    role: what the config calls it.
    **own: the other fields that this kind has.

  Raises:
    UserError: a shape that no network has; names the key.
  """
  shape = {"width": 512, "depth": 8, "heads": 16, **(shape or {})}
  return kind(
    grid=encoder.grid,
    options=encoder.options,
    **check_shape(role, shape),
    **own,
  )
