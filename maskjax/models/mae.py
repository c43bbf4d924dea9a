"""The masked autoencoder: an encoder of what is visible and a light decoder."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.models.vit import VisionEncoder, check_shape
from maskjax.tokens import places, sincos


class Decoder(nn.Module):
  """Predicts patches from encoded visible tokens and mask tokens.

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    patch_dim: length P of a prediction.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    positions: `sincos`, fixed and added to the tokens, or `rotary`.
    norm_epsilon: added to the variance in layer normalisation.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  grid: tuple[int, int]
  patch_dim: int
  width: int
  depth: int
  heads: int
  positions: str = "sincos"
  norm_epsilon: float = 1e-6
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, encoded: Array, mask: Mask, visible_too: bool, view: Array | None = None
  ) -> Array:
    """Predicts hidden patches, or all.

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
      positions = jnp.zeros((mask.hidden.shape[1], self.width), self.dtype)
    embed = Dense(self.width, dtype=self.dtype, name="embed")
    x = embed(encoded)
    token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width))
    # Attention does not mind the order of tokens: the hidden ones stand last, and
    # nothing need be put back in its place. [B, 1 + V + M, D]
    first = x.shape[1] - mask.visible_ids.shape[1]
    x = jnp.concatenate(
      [
        x[:, :first],
        x[:, first:] + positions[mask.visible_ids],
        token.astype(self.dtype) + positions[mask.hidden_ids],
      ],
      axis=1,
    )
    where: dict[str, Any] = {}
    if self.positions == "rotary":
      at = jnp.asarray(places(self.grid))
      ids = jnp.concatenate([mask.visible_ids, mask.hidden_ids], axis=1)
      # [B, 1 + V + M, 2]: the class token, where there is one, stands at 0.
      where["places"] = jnp.pad(at[ids], ((0, 0), (first, 0), (0, 0)))
      where["context_places"] = None if view is None else at
    if view is not None:
      where["context"] = embed(view) + positions
    wanted = mask.hidden.shape[1] if visible_too else mask.hidden_ids.shape[1]
    x = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      attends="self" if view is None else "both",
      dtype=self.dtype,
      name="transformer",
      **self.options,
    )(x, wanted, **where)[-1]
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
    head = Dense(self.patch_dim, dtype=self.dtype, name="head")
    x = head(x).astype(jnp.float32)
    if visible_too:
      num_visible = mask.visible_ids.shape[1]
      x = mask.restore(x[:, :num_visible], x[:, num_visible:])
    return x


class MaskedAutoencoder(nn.Module):
  """The network of MAE (https://arxiv.org/abs/2111.06377, section 3).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees their codes and mask tokens.
  """

  encoder: VisionEncoder
  decoder: Decoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts hidden patches: [B, N, P] to float32 [B, M, P], see `Decoder`."""
    return self.decoder(self.encoder(patches, mask), mask, visible_too)

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return self.encoder(patches)


class MiningAutoencoder(nn.Module):
  """MAE's network with a second decoder, which predicts the errors of the first.

  As HPM has it (https://arxiv.org/abs/2304.05919, section 3.2).

  Attributes:
    encoder: sees the visible patches only.
    decoder: sees their codes and mask tokens, and predicts the patches.
    predictor: sees the same, and predicts one number a patch, the larger the harder
      the patch is.
  """

  encoder: VisionEncoder
  decoder: Decoder
  predictor: Decoder

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts hidden patches: [B, N, P] to float32 [B, M, P], see `Decoder`."""
    return self.decoder(self.encoder(patches, mask), mask, visible_too)

  def with_difficulty(self, patches: Array, mask: Mask) -> tuple[Array, Array]:
    """Predicts hidden patches, and how hard they are: float32 [B, M, P] and [B, M]."""
    tokens = self.encoder(patches, mask)
    hard = self.predictor(tokens, mask, False)
    return self.decoder(tokens, mask, False), hard[..., 0]

  def difficulty(self, patches: Array) -> Array:
    """Says of a whole image how hard each patch would be: float32 [B, N]."""
    nothing = Mask.from_hidden(jnp.zeros(patches.shape[:2], bool), num_hidden=0)
    return self.predictor(self.encoder(patches), nothing, True)[..., 0]

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return self.encoder(patches)


def decoder_of(
  encoder: VisionEncoder,
  shape: Mapping[str, Any] | None,
  *,
  kind: type = Decoder,
  role: str = "decoder",
  **own: Any,
) -> Any:
  """Makes a decoder that agrees with an encoder in all but its shape.

  Args:
    encoder: whose codes it is to decode.
    shape: `width`, `depth` and `heads`; 512, 8 and 16 where left out.
    kind: a module with the fields of `Decoder`.
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
