"""The network of CAE: masked latents are predicted before their codes."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking import Mask
from maskjax.models import BlockOptions, blocks_like, norm_like
from maskjax.models.attention import Attention
from maskjax.models.dropout import stochastic_depth
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import Mlp, dense_like, remat_of
from maskjax.sharding import constrain_batch
from maskjax.tokens import sincos


class RegressorBlock(nn.Module):
  """Latents of masked patches attend to those of all patches, and change alone.

  Positions are part of queries and keys, and not of values.

  Attributes:
    heads: number of attention heads.
    options: with a `layer_scale`.
  """

  heads: int
  options: BlockOptions

  @nn.compact
  def __call__(
    self,
    masked: Array,
    visible: Array,
    masked_positions: Array,
    visible_positions: Array,
    drop_path: Array | float = 0.0,
    number: Array | int = 1,
  ) -> Array:
    """Transforms latents of masked patches.

    Args:
      masked: [B, M, D].
      visible: latents of visible patches, [B, V, D].
      masked_positions: position embeddings, [B, M, D].
      visible_positions: position embeddings, [B, V, D].
      drop_path: see `maskjax.models.transformer.Block`.
      number: likewise.

    Returns:
      [B, M, D].
    """
    options, drawn = self.options, self.options.drawn

    def norm(x: Array, name: str) -> Array:
      return cast(Array, norm_like(self, name=name)(x))

    def add(x: Array, y: Array, name: str) -> Array:
      assert options.layer_scale is not None  # as `cae` makes it
      init = nn.initializers.constant(options.layer_scale)
      scale = self.param(f"{name}_scale", init, (y.shape[-1],))
      return x + stochastic_depth(self, y * scale.astype(y.dtype), drop_path)

    masked = constrain_batch(masked)
    tokens = jnp.concatenate([visible, masked], axis=1)
    positions = jnp.concatenate([visible_positions, masked_positions], axis=1)
    attention = Attention(
      heads=self.heads,
      key_bias=options.key_bias,
      drawn=drawn.attention(number, to_others=True),
      dtype=options.dtype,
      name="attention",
    )
    seen = attention(
      norm(masked + masked_positions, "query_norm"),
      norm(tokens + positions, "key_norm"),
      values=norm(tokens, "value_norm"),
    )
    # The authors' code normalizes what the second branch adds to, too.
    x = norm(add(masked, seen, "attention"), "mlp_norm")
    mlp = Mlp(
      ratio=options.mlp_ratio,
      drawn=drawn.inner,
      end_drawn=drawn.end(number),
      dtype=options.dtype,
      name="mlp",
    )
    return constrain_batch(add(x, mlp(x), "mlp"))


class ContextAutoencoder(EncoderModel):
  """The network of CAE (https://arxiv.org/abs/2202.03026, section 3.1).

  Attributes:
    encoder: sees the visible patches only. What follows has its `options` too, with a
      `layer_scale`.
    num_codes: length K of a prediction.
    regressor_depth: blocks from visible latents to masked ones.
    decoder_depth: blocks from masked latents to codes.
  """

  num_codes: int
  regressor_depth: int
  decoder_depth: int

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> tuple[Array, Array, Array]:
    """Predicts masked patches of [B, N, P] from the visible ones.

    Returns:
      Logits, float32 [B, M, K]; the predicted latents that they were decoded from,
      [B, M, D]; and those that the encoder gives for the masked patches when it sees
      them, and them alone, [B, M, D], without gradients.
    """
    encoder = self.encoder
    visible = encoder.patch_tokens(encoder(patches, mask))
    latents = encoder.patch_tokens(encoder(patches, mask.inverse()))
    table = jnp.asarray(sincos(encoder.grid, encoder.width), encoder.dtype)
    masked_positions = table[mask.masked_ids]
    predicted = self._regress(visible, masked_positions, table[mask.visible_ids])
    decoder = blocks_like(encoder, self.decoder_depth, name="decoder")
    x = decoder(predicted + masked_positions)[-1]
    x = norm_like(encoder, name="decoder_norm")(x)
    logits = dense_like(encoder, self.num_codes, "head", name="head")(x)
    return logits.astype(jnp.float32), predicted, jax.lax.stop_gradient(latents)

  def _regress(
    self, visible: Array, masked_positions: Array, visible_positions: Array
  ) -> Array:
    """Latents of masked patches from those of visible ones: [B, V, D] to [B, M, D]."""
    encoder, options = self.encoder, self.encoder.options
    init = options.drawn.mask_token
    token = self.param("mask_token", init, (1, 1, encoder.width))
    masked = jnp.broadcast_to(token.astype(encoder.dtype), masked_positions.shape)
    block = remat_of(RegressorBlock, options.remat)
    rates = jnp.linspace(0.0, options.drop_path, self.regressor_depth)
    for i in range(self.regressor_depth):
      masked = block(heads=encoder.heads, options=options, name=f"regressor_{i}")(
        masked, visible, masked_positions, visible_positions, rates[i], i + 1
      )
    return cast(Array, norm_like(encoder, name="regressor_norm")(masked))
