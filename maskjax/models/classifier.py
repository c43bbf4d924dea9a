"""A linear classifier on any encoder of images."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError, did_you_mean
from maskjax.models.cnn import ConvEncoder
from maskjax.models.convnext import ConvNext
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.initialization import UNIFORM, LayerInit
from maskjax.models.swin import SwinEncoder
from maskjax.models.transformer import LayerNorm, norm_like
from maskjax.models.vit import POSITIONS, VisionEncoder

POOLS = ("mean", "class_token")
NORMS = ("new", "own", "moved", "none")


class Classifier(EncoderModel):
  """A linear classifier on the pooled features of an encoder.

  Attributes:
    encoder: gives [B, N, D] of patches [B, N, P], see `without_masks`.
    num_classes: number of classes K.
    pool: `mean`, of the features of patches or positions; or `class_token`.
    norm: whether to normalize what was pooled.
    head_std: of the last layer's weights at first, normal around 0; when None they and
      the biases are uniform up to the root of 1 / D, as torch makes a layer.
  """

  num_classes: int
  pool: str = "mean"
  norm: bool = True
  head_std: float | None = 2e-5

  @nn.compact
  def __call__(self, patches: Array) -> Array:
    """Classifies patches [B, N, P]: float32 logits [B, K]."""
    tokens = self.encoder(patches)
    if self.pool == "class_token":
      # Registers stand before it.
      x = tokens[:, self.encoder.registers].astype(jnp.float32)
    else:
      x = self.encoder.patch_tokens(tokens).astype(jnp.float32).mean(axis=1)
    if self.norm:
      fields: dict[str, Any] = dict(dtype=jnp.float32, name="norm")
      if isinstance(self.encoder, ConvEncoder):
        x = LayerNorm(epsilon=1e-6, **fields)(x)
      else:
        x = norm_like(self.encoder, **fields)(x)
    head = LayerInit(UNIFORM, bias_init=None)
    if self.head_std is not None:
      head = LayerInit(nn.initializers.normal(self.head_std))
    return nn.Dense(
      self.num_classes,
      kernel_init=head.kernel_init,
      bias_init=head.of_bias(x.shape[-1]),
      name="head",
    )(x)


def default_norm(encoder: Any) -> str:
  """How an encoder's features are normalized, as its papers have it.

  Example:
    >>> from maskjax.models import conv_encoder
    >>> resnet = conv_encoder(image_size=224, patch_size=None, encoder="resnet50")
    >>> default_norm(resnet)
    'none'
  """
  if isinstance(encoder, SwinEncoder):
    return "own"
  if isinstance(encoder, ConvEncoder):
    return "new" if isinstance(encoder.network, ConvNext) else "none"
  return "new"


def without_masks(
  encoder: Any,
  *,
  grid: tuple[int, ...] | None = None,
  norm: str = "own",
  drop_path: float = 0.0,
  positions: str | None = None,
  block_bias: bool = False,
  window: int | None = None,
  **compute: Any,
) -> Any:
  """A pretrained encoder's network as it is finetuned: of whole images alone.

  Args:
    encoder: a `VisionEncoder`, a `SwinEncoder` or a `ConvEncoder`.
    grid: rows and columns of patches; the encoder's when None.
    norm: `own` keeps the last normalization of its tokens; all others leave it out.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    positions: of a ViT, see `VisionEncoder`; its own when None.
    block_bias: of a ViT, see `VisionEncoder`; relative positions that its blocks share
      become such.
    window: of a Swin; its own when None.
    **compute: `dtype`, `scan` and `remat`, where they differ from the encoder's.

  Returns:
    An encoder of the same kind, with parameters under the same names.

  Raises:
    UserError: an option that this kind of encoder does not have; names it.
  """
  if norm not in NORMS:
    raise UserError(f"norm={norm!r}: {did_you_mean(norm, NORMS)}")
  grid = encoder.grid if grid is None else grid
  vit_only: dict[str, Any] = {"positions": positions, "block_bias": block_bias}
  refused = {} if isinstance(encoder, VisionEncoder) else vit_only
  if isinstance(encoder, SwinEncoder):
    refused = {**refused, "scan": compute.pop("scan", None)}
  else:
    refused = {**refused, "window": window}
  if isinstance(encoder, ConvEncoder):
    refused = {**refused, **{k: v for k, v in compute.items() if k != "dtype"}}
  kind = type(encoder).__name__
  for key, value in refused.items():
    if value:
      raise UserError(f"{key}={value!r}: expected none, which {kind} does not have")
  if isinstance(encoder, ConvEncoder):
    if norm not in ("new", "none"):
      raise UserError(f"norm={norm!r}: expected 'new' or 'none' for {kind}")
    changes = {"drop_path": drop_path, **compute}
    return encoder.clone(grid=grid, network=encoder.network.clone(**changes))
  options = encoder.options.replace(drop_path=drop_path, **compute)
  if isinstance(encoder, SwinEncoder):
    if norm != "own":
      raise UserError(f"norm={norm!r}: expected 'own' for {kind}")
    return encoder.clone(
      grid=grid, window=window or encoder.window, masks=False, options=options
    )
  if not isinstance(encoder, VisionEncoder):
    raise UserError(
      f"the system's encoder is a {kind}: expected a VisionEncoder, a SwinEncoder or a "
      "ConvEncoder"
    )
  if norm in ("own", "moved") and not encoder.final_norm:
    raise UserError(
      f"norm={norm!r}: expected 'new' or 'none', since the encoder has no last "
      "normalization"
    )
  positions = encoder.positions if positions is None else positions
  if positions not in POSITIONS:
    raise UserError(f"positions={positions!r}: {did_you_mean(positions, POSITIONS)}")
  if positions == "learned_sincos" and encoder.positions not in ("sincos", positions):
    raise UserError(
      f"positions={positions!r}: expected an encoder with 'sincos', from which they go "
      f"on, and not with {encoder.positions!r}"
    )
  if block_bias and positions == "relative":
    positions = "none"
  tokens = {"token": "dropped"}.get(encoder.masked_patches, encoder.masked_patches)
  return encoder.clone(
    grid=grid,
    masked_patches=tokens,
    mask_token_layer=0,
    positions=positions,
    block_bias=block_bias or encoder.block_bias,
    final_norm=norm == "own",
    options=options,
  )


def check_pool(pool: str, encoder: Any) -> None:
  """Raises a `UserError` unless an encoder can be pooled so."""
  if pool not in POOLS:
    raise UserError(f"pool={pool!r}: {did_you_mean(pool, POOLS)}")
  has_token = isinstance(encoder, VisionEncoder) and encoder.class_token
  if pool == "class_token" and not has_token:
    raise UserError(
      f"pool={pool!r}: expected 'mean', since {type(encoder).__name__} has no class "
      "token here"
    )
