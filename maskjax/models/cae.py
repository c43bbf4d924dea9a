"""The context autoencoder: masked patches' latents are told before their contents."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.masking import Mask
from maskjax.models.attention import Attention
from maskjax.models.dense import Dense
from maskjax.models.dropout import stochastic_depth
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import (
  LayerNorm,
  Mlp,
  blocks_like,
  norm_like,
  remat_of,
)
from maskjax.sharding import constrain_batch
from maskjax.tokens import sincos


class RegressorBlock(nn.Module):
  """Masked patches' latents look at those of all patches, and change alone.

  Places count where to look, not in what is taken.

  Attributes:
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLP over the width of the tokens.
    norm_epsilon: added to the variance in layer normalization.
    layer_scale: what each branch's channels are multiplied by at first.
    dtype: type of the computation.
  """

  heads: int
  mlp_ratio: float
  norm_epsilon: float
  layer_scale: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    masked: Array,
    visible: Array,
    masked_places: Array,
    visible_places: Array,
    drop_path: Array | float = 0.0,
  ) -> Array:
    """Transforms latents of masked patches.

    Args:
      masked: [B, M, D].
      visible: latents of visible patches, [B, V, D].
      masked_places: embeddings of places, [B, M, D].
      visible_places: [B, V, D].
      drop_path: see `maskjax.models.transformer.Block`.

    Returns:
      [B, M, D].
    """

    def norm(x: Array, name: str) -> Array:
      layer = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)
      return cast(Array, layer(x))

    def add(x: Array, y: Array, name: str) -> Array:
      init = nn.initializers.constant(self.layer_scale)
      scale = self.param(f"{name}_scale", init, (y.shape[-1],))
      return x + stochastic_depth(self, y * scale.astype(y.dtype), drop_path)

    masked = constrain_batch(masked)
    everything = jnp.concatenate([visible, masked], axis=1)
    places = jnp.concatenate([visible_places, masked_places], axis=1)
    attention = Attention(
      heads=self.heads, key_bias=False, dtype=self.dtype, name="attention"
    )
    seen = attention(
      norm(masked + masked_places, "query_norm"),
      norm(everything + places, "key_norm"),
      values=norm(everything, "value_norm"),
    )
    # The authors' code normalizes what the second branch adds to, too.
    x = norm(add(masked, seen, "attention"), "mlp_norm")
    mlp = Mlp(ratio=self.mlp_ratio, dtype=self.dtype, name="mlp")
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
    """Tells masked patches of [B, N, P] from the visible ones.

    Returns:
      Logits, float32 [B, M, K]; the latents that they were decoded from, [B, M, D];
      and those that the encoder gives for the masked patches when it sees them, and
      them alone, [B, M, D], without gradients.
    """
    encoder = self.encoder
    visible = encoder.patch_tokens(encoder(patches, mask))
    latents = encoder.patch_tokens(encoder(patches, mask.inverse()))
    table = jnp.asarray(sincos(encoder.grid, encoder.width), encoder.dtype)
    regressed = self._regress(visible, table[mask.masked_ids], table[mask.visible_ids])
    decoder = blocks_like(encoder, self.decoder_depth, name="decoder")
    x = decoder(regressed + table[mask.masked_ids])[-1]
    x = norm_like(encoder, name="decoder_norm")(x)
    logits = Dense(self.num_codes, dtype=encoder.dtype, name="head")(x)
    return logits.astype(jnp.float32), regressed, jax.lax.stop_gradient(latents)

  def _regress(
    self, visible: Array, masked_places: Array, visible_places: Array
  ) -> Array:
    """Latents of masked patches from those of visible ones: [B, V, D] to [B, M, D]."""
    encoder, options = self.encoder, self.encoder.options
    init = nn.initializers.normal(0.02)
    token = self.param("mask_token", init, (1, 1, encoder.width))
    masked = jnp.broadcast_to(token.astype(encoder.dtype), masked_places.shape)
    block = remat_of(RegressorBlock, options.remat)
    rates = jnp.linspace(0.0, options.drop_path, self.regressor_depth)
    for i in range(self.regressor_depth):
      masked = block(
        heads=encoder.heads,
        mlp_ratio=options.mlp_ratio,
        norm_epsilon=encoder.norm_epsilon,
        layer_scale=options.layer_scale,
        dtype=encoder.dtype,
        name=f"regressor_{i}",
      )(masked, visible, masked_places, visible_places, rates[i])
    return cast(Array, norm_like(encoder, name="regressor_norm")(masked))
