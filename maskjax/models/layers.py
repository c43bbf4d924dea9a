"""The outputs of an encoder's blocks, for systems that learn from hidden states."""

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
    attention: weight of each patch for the class token in the last block, mean over
      heads: float32 [B, V]; None unless `encoder_layers` was to give it.
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
    attention: give the attention of the class token in the last of them.

  Raises:
    UserError: the encoder is no vision transformer, or has no class token whose
      attention to give.
  """
  if not isinstance(encoder, VisionEncoder):
    raise UserError(
      f"{type(encoder).__name__} has no layers to learn from: expected a vision "
      "transformer"
    )
  if attention and not encoder.class_token:
    raise UserError("class_token=False: expected True, to give its attention")
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
