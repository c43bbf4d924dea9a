"""Decoders: what an encoder's codes say of places that it did not see."""

from collections.abc import Mapping
from typing import Any, cast

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.models.vit import VisionEncoder, check_shape
from maskjax.tokens import grid_positions, sincos


class TokenDecoder(nn.Module):
  """What decoders have in common; each adds its `__call__`.

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    norm_epsilon: added to the variance in layer normalization.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  grid: tuple[int, int]
  width: int
  depth: int
  heads: int
  norm_epsilon: float = 1e-6
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  def mask_tokens(self, count: int = 1) -> Array:
    """Learned tokens, [1, count, D]."""
    init = nn.initializers.normal(0.02)
    return self.param("mask_token", init, (1, count, self.width)).astype(self.dtype)

  def transform(
    self, x: Array, wanted: int | None = None, *, attends: str = "self", **seen: Any
  ) -> Array:
    """Runs the blocks, and normalizes.

    Args:
      x: tokens, [B, L, D].
      wanted: how many of them, the last ones, to give; all when None.
      attends: to what, see `Transformer`.
      **seen: `context` and places, see there.

    Returns:
      [B, wanted, D].
    """
    x = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      attends=attends,
      dtype=self.dtype,
      name="transformer",
      **self.options,
    )(x, wanted, **seen)[-1]
    norm = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")
    return cast(Array, norm(x))

  def predict(self, x: Array, size: int) -> Array:
    """A linear layer: [B, M, D] to float32 [B, M, size]."""
    return Dense(size, dtype=self.dtype, name="head")(x).astype(jnp.float32)


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
      view: [B, N, E], another image's codes, to which each block attends between
        its attention to these tokens and its MLP.

    Returns:
      float32 [B, M, P], or [B, N, P] when `visible_too`, in order of place.
    """
    if self.positions == "sincos":
      positions = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    else:
      positions = jnp.zeros((mask.masked.shape[1], self.width), self.dtype)
    embed = Dense(self.width, dtype=self.dtype, name="embed")
    x = embed(encoded)
    # Attention does not mind the order of tokens: the masked ones stand last, and
    # nothing need be put back in its place. [B, 1 + V + M, D]
    first = x.shape[1] - mask.visible_ids.shape[1]
    x = jnp.concatenate(
      [
        x[:, :first],
        x[:, first:] + positions[mask.visible_ids],
        self.mask_tokens() + positions[mask.masked_ids],
      ],
      axis=1,
    )
    where: dict[str, Any] = {}
    if self.positions == "rotary":
      at = jnp.asarray(grid_positions(self.grid))
      ids = jnp.concatenate([mask.visible_ids, mask.masked_ids], axis=1)
      # [B, 1 + V + M, 2]: the class token, where there is one, stands at 0.
      where["places"] = jnp.pad(at[ids], ((0, 0), (first, 0), (0, 0)))
      where["context_places"] = None if view is None else at
    if view is not None:
      where["context"] = embed(view) + positions
    wanted = mask.masked.shape[1] if visible_too else mask.masked_ids.shape[1]
    attends = "self" if view is None else "both"
    x = self.transform(x, wanted, attends=attends, **where)
    x = self.predict(x, self.patch_dim)
    if visible_too:
      num_visible = mask.visible_ids.shape[1]
      x = mask.restore(x[:, :num_visible], x[:, num_visible:])
    return x


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
    encoder: whose codes it is to decode.
    shape: `width`, `depth` and `heads`; 512, 8 and 16 where left out.
    kind: a `TokenDecoder`.
    role: what the config calls it.
    **own: the other fields that this kind has.

  Raises:
    UserError: a shape that cannot be; names the key.
  """
  shape = {"width": 512, "depth": 8, "heads": 16, **(shape or {})}
  return kind(
    grid=encoder.grid,
    norm_epsilon=encoder.norm_epsilon,
    options=encoder.options,
    dtype=encoder.dtype,
    **check_shape(role, shape),
    **own,
  )
