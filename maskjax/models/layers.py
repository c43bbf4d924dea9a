"""What the blocks of an encoder say, for systems that learn from a network's inside."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.attention import last_attention
from maskjax.models.vit import VisionEncoder


class Layers(NamedTuple):
  """Tokens inside a network.

  Attributes:
    tokens: after each block, before the last normalization: [B, 1 + V, D] each, the
      class token first where there is one.
    attention: how much the class token takes from each patch in the last block, mean
      over heads: float32 [B, V]; None where nobody asked for it.
  """

  tokens: list[Array]
  attention: Array | None = None


def encoder_layers(
  encoder: VisionEncoder,
  params: Mapping[str, Any],
  patches: Array,
  mask: Mask | None = None,
  *,
  depth: int | None = None,
  attention: bool = False,
) -> Layers:
  """Runs an encoder, or its first blocks alone.

  Args:
    encoder: the encoder.
    params: its parameters.
    patches: [B, N, P].
    mask: which patches it must not see; none when None.
    depth: how many blocks to run; all when None.
    attention: whether to say what the class token of the last of them looks at.

  Raises:
    UserError: the encoder is none of blocks that can be asked one by one, or has no
      class token to say the attention of.
  """
  if not hasattr(encoder, "every_block"):
    raise UserError(
      f"{type(encoder).__name__} has no layers to learn from: expected a vision "
      "transformer, whose blocks can be asked one by one"
    )
  if attention and not encoder.class_token:
    raise UserError("no class token whose attention to say: expected class_token=True")
  depth = encoder.depth if depth is None else depth
  blocks = params["transformer"]
  if "blocks" in blocks:
    first = jax.tree.map(lambda stacked: stacked[:depth], blocks["blocks"])
    params = {**params, "transformer": {**blocks, "blocks": first}}
  tokens, sown = encoder.clone(depth=depth, final_norm=False).apply(
    {"params": params},
    *(patches, mask),
    method="every_block",
    mutable=["intermediates"] if attention else [],
  )
  if not attention:
    return Layers(tokens)
  weights = last_attention(sown["intermediates"]["transformer"])  # [B, H, 1 + V, 1 + V]
  return Layers(tokens, weights[:, :, 0, 1:].mean(axis=1))
