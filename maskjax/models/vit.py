"""The vision transformer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models.dense import Dense
from maskjax.models.transformer import REMAT, LayerNorm, Transformer
from maskjax.resolve import did_you_mean
from maskjax.tokens import grid_of, sincos

# Widths, depths and heads: https://arxiv.org/abs/2010.11929, table 1, and for
# Ti and S https://arxiv.org/abs/2012.12877, table 1.
VIT_SIZES: Mapping[str, Mapping[str, int]] = {
  "Ti": {"width": 192, "depth": 12, "heads": 3},
  "S": {"width": 384, "depth": 12, "heads": 6},
  "B": {"width": 768, "depth": 12, "heads": 12},
  "L": {"width": 1024, "depth": 24, "heads": 16},
  "H": {"width": 1280, "depth": 32, "heads": 16},
}


def vit_size(size: str) -> dict[str, int]:
  """Width, depth and heads of a named size.

  Example:
    >>> vit_size("S")
    {'width': 384, 'depth': 12, 'heads': 6}
  """
  if size not in VIT_SIZES:
    raise UserError(f"no ViT size {size!r}: {did_you_mean(size, VIT_SIZES)}")
  return dict(VIT_SIZES[size])


class VisionEncoder(nn.Module):
  """A ViT over patches that may see only some of them.

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    final_norm: normalise the tokens after the last block.
    norm_epsilon: added to the variance in layer normalisation.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  grid: tuple[int, int]
  width: int
  depth: int
  heads: int
  final_norm: bool = True
  norm_epsilon: float = 1e-6
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, patches: Array, mask: Mask | None = None) -> Array:
    """Encodes the visible patches, or all without a mask.

    Args:
      patches: [B, N, P].
      mask: which patches the encoder must not see.

    Returns:
      [B, 1 + V, D]: the class token, then the visible patches in order.
    """
    positions = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    if mask is not None:
      patches = mask.visible(patches)
      positions = positions[mask.visible_ids]
    x = Dense(self.width, dtype=self.dtype, name="embed")(patches)
    x = x + positions
    cls = self.param("cls", nn.initializers.normal(0.02), (1, 1, self.width))
    cls = jnp.broadcast_to(cls.astype(self.dtype), (x.shape[0], 1, self.width))
    x = jnp.concatenate([cls, x], axis=1)
    x = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      dtype=self.dtype,
      name="transformer",
      **self.options,
    )(x)
    if self.final_norm:
      x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
    return x


def vit_encoder(
  *,
  image_size: int | Sequence[int],
  patch_size: int | Sequence[int],
  encoder: Mapping[str, Any] | str,
  dtype: str = "float32",
  norm_epsilon: float = 1e-6,
  final_norm: bool = True,
  **options: Any,
) -> VisionEncoder:
  """Makes an encoder from hyperparameters, and checks that they fit.

  Args:
    image_size: side, or (height, width), in pixels.
    patch_size: side, or (height, width), in pixels.
    encoder: a name in `VIT_SIZES`, or a mapping with `size`, or with `width`,
      `depth` and `heads`.
    dtype: `float32` or `bfloat16`, type of the computation.
    norm_epsilon: added to the variance in layer normalisation.
    final_norm: normalise the tokens after the last block.
    **options: further fields of `Transformer`.

  Raises:
    UserError: names the hyperparameter that does not fit.
  """
  shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  if shape.get("size"):
    shape = {**vit_size(shape.pop("size")), **shape}
  return VisionEncoder(
    grid=grid_of(image_size, patch_size),
    **check_shape("encoder", shape),
    final_norm=final_norm,
    norm_epsilon=norm_epsilon,
    options=check_options(options),
    dtype=check_dtype(dtype),
  )


def check_shape(role: str, shape: Mapping[str, Any]) -> dict[str, Any]:
  """Checks the `width`, `depth` and `heads` of a network called `role`."""
  for key in ("width", "depth", "heads"):
    if not isinstance(shape.get(key), int) or shape[key] < 1:
      raise UserError(f"{role}.{key}={shape.get(key)}: expected a positive integer")
  for key in shape:
    if key not in ("width", "depth", "heads"):
      raise UserError(f"{role}.{key}: {did_you_mean(key, ('width', 'depth', 'heads'))}")
  if shape["width"] % shape["heads"]:
    raise UserError(
      f"{role}.width={shape['width']}: expected a multiple of "
      f"{role}.heads={shape['heads']}"
    )
  return dict(shape)


def check_options(options: Mapping[str, Any]) -> FrozenDict[str, Any]:
  """Checks further fields of `Transformer`."""
  free = ("drop_path", "mlp_ratio", "remat", "scan")
  for key in options:
    if key not in free:
      raise UserError(f"no model option {key!r}: {did_you_mean(key, free)}")
  rate = options.get("drop_path", 0.0)
  if not 0 <= rate < 1:
    raise UserError(f"drop_path={rate}: expected at least 0 and less than 1")
  remat = options.get("remat", "none")
  if remat not in ("none", *REMAT):
    raise UserError(f"remat={remat!r}: expected {', '.join(('none', *REMAT))}")
  return FrozenDict(options)


def check_dtype(dtype: str) -> DTypeLike:
  """Reads the type of the computation by its name."""
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"dtype={dtype!r}: expected 'float32' or 'bfloat16'")
  return jnp.dtype(dtype)


class Classifier(nn.Module):
  """A linear classifier on the mean of an encoder's patch tokens.

  As MAE finetunes: the encoder's own last normalisation gives way to one of the
  mean.

  Attributes:
    encoder: gives [B, 1 + N, D] of patches, with `final_norm=False`.
    num_classes: number of classes K.
  """

  encoder: VisionEncoder
  num_classes: int

  @nn.compact
  def __call__(self, patches: Array) -> Array:
    """Classifies patches [B, N, P]: float32 logits [B, K]."""
    x = self.encoder(patches)[:, 1:].astype(jnp.float32).mean(axis=1)
    x = LayerNorm(epsilon=self.encoder.norm_epsilon, name="norm")(x)
    init = nn.initializers.truncated_normal(2e-5)
    return nn.Dense(self.num_classes, kernel_init=init, name="head")(x)
