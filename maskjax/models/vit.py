"""The vision transformer."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError, did_you_mean
from maskjax.masking import Mask, gather
from maskjax.models.block_options import BlockOptions, split_options
from maskjax.models.checks import check_rotary, check_shape
from maskjax.models.relative_bias import BlockBiases, RelativeBias
from maskjax.models.transformer import Change, Transformer, dense_like, norm_like
from maskjax.tokens import sincos

# Widths, depths and heads: https://arxiv.org/abs/2010.11929, table 1, and for
# Ti and S https://arxiv.org/abs/2012.12877, table 1.
VIT_SIZES: Mapping[str, Mapping[str, int]] = {
  "Ti": {"width": 192, "depth": 12, "heads": 3},
  "S": {"width": 384, "depth": 12, "heads": 6},
  "B": {"width": 768, "depth": 12, "heads": 12},
  "L": {"width": 1024, "depth": 24, "heads": 16},
  "H": {"width": 1280, "depth": 32, "heads": 16},
}

MASKED_PATCHES = ("dropped", "token", "silent")
POSITIONS = (
  "sincos",
  "sincos_spread",
  "learned",
  "learned_sincos",
  "rotary",
  "relative",
  "none",
)


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
  """A ViT over the patches of an image or a clip, some of which may be masked.

  Attributes:
    grid: sides of the grid of patches, as many as it has axes: rows and columns of an
      image; N is their product.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    masked_patches: what becomes of masked patches: `dropped` them, as MAE does; a
      learned `token` in place of each, as BEiT and SimMIM have it; or `silent`: they
      attend to the visible ones, and nothing attends to them, as in MP3.
    mask_token_layer: the block before which the learned token enters, from 0. Before
      the first one it replaces embedded patches, which then get their positions; before
      a later one it replaces hidden states as they are, as in A2MIM
      (https://arxiv.org/abs/2205.13943), so that from there on masked patches differ by
      rotary or relative positions alone.
    positions: `sincos`, fixed, and `sincos_spread`, see `maskjax.tokens.sincos`;
      `learned`; `learned_sincos`, learned from the fixed ones on; `rotary`, see
      `maskjax.models.rotary`; `relative`, see `maskjax.models.relative_bias`, a bias
      that all blocks share; or `none`.
    block_bias: give the attention of each block a bias of relative positions of its
      own besides, as BEiT and CAE do when they are finetuned.
    class_token: put a learned token before the patches.
    registers: how many further learned tokens stand before them, for features of no
      patch in particular (https://arxiv.org/abs/2309.16588).
    embed_bias: give the embedding of patches a bias.
    embed_norm: normalize the tokens before the first block, as CLIP does.
    final_norm: normalize the tokens after the last block.
    final_affine: give that normalization a scale and a bias.
    options: of the blocks; normalizations outside of them have the same.
  """

  grid: tuple[int, ...]
  width: int
  depth: int
  heads: int
  masked_patches: str = "dropped"
  mask_token_layer: int = 0
  positions: str = "sincos"
  block_bias: bool = False
  class_token: bool = True
  registers: int = 0
  embed_bias: bool = True
  embed_norm: bool = False
  final_norm: bool = True
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

  @property
  def drops_paths(self) -> bool:
    """Whether training drops branches of blocks at random."""
    return self.options.drop_path > 0

  def __call__(self, patches: Array, mask: Mask | None = None) -> Array:
    """Encodes the visible patches, or all without a mask.

    Args:
      patches: [B, N, P].
      mask: which patches the encoder must not see.

    Returns:
      [B, 1 + V, D]: the class token, where there is one, then the visible patches in
      order; [B, 1 + N, D] where masked patches are not `dropped`. Registers, where
      there are such, stand before all.
    """
    return self.every_block(patches, mask)[-1]

  def setup(self) -> None:
    """Makes the bias of relative positions, which further blocks may share."""
    table: dict[str, Any] = dict(
      grid=self.grid, heads=self.heads, class_token=self.class_token
    )
    if self.positions == "relative":
      init_table = self.options.drawn.relative
      self.relative = RelativeBias(**table, init_table=init_table)
    if self.block_bias:
      self.biases = BlockBiases(**table, depth=self.depth, scan=self.options.scan)

  @nn.compact
  def every_block(
    self, patches: Array, mask: Mask | None = None, *, embedded_too: bool = False
  ) -> list[Array]:
    """As `__call__`, after each block; `final_norm` is of the last alone.

    Args:
      patches: see `__call__`.
      mask: see `__call__`.
      embedded_too: begin with the tokens before the first block.

    Returns:
      What `__call__` gives, for each block.

    Raises:
      UserError: relative positions of an encoder that does not keep all patches in
        order.
    """
    # Numbers of the patches that are here, in their order; None for all.
    ids, num_keys = None, None
    if mask is not None and self.masked_patches == "dropped":
      ids = mask.visible_ids
    if mask is not None and self.masked_patches == "silent":
      ids = jnp.concatenate([mask.visible_ids, mask.masked_ids], axis=1)
      num_keys = self.num_first + mask.visible_ids.shape[1]
    if ids is not None:
      patches = gather(patches, ids)
    embed = dense_like(
      self, self.width, "patches", use_bias=self.embed_bias, name="embed"
    )
    x = embed(patches)
    change = None
    if self.masked_patches == "token":
      token = self.param("mask_token", self.options.drawn.mask_token, (self.width,))
      if mask is not None:
        enter = functools.partial(
          self._replaced, token=token.astype(self.dtype), masked=mask.masked
        )
        if self.mask_token_layer:
          change = Change(self.mask_token_layer, enter)
        else:
          x = enter(x)

    def present(table: Array | np.ndarray) -> Array | np.ndarray:
      """Of a table of all patches, the rows of those that are here."""
      return table if ids is None else jnp.asarray(table)[ids]

    inputs: dict[str, Any] = {}
    if self.positions in ("sincos", "sincos_spread", "learned", "learned_sincos"):
      x = x + present(self._position_table())
    if self.class_token:
      x = jnp.concatenate([self._class_token(len(x)), x], axis=1)
    if self.registers:
      registers = self._learned("registers", self.registers)
      x = jnp.concatenate([jnp.tile(registers, (len(x), 1, 1)), x], axis=1)
    if self.positions == "rotary":
      rotary = self.options.rotary
      positions = present(rotary.positions(self.grid))
      inputs["positions"] = rotary.first(positions, self.num_first)
    if self.positions == "relative" or self.block_bias:
      if ids is not None or self.registers:
        raise UserError(
          "positions='relative': expected masked_patches='token' and no registers"
        )
      shared = self.relative() if self.positions == "relative" else 0.0
      inputs["bias"] = (
        [bias + shared for bias in self.biases()] if self.block_bias else shared
      )
    if self.embed_norm:
      x = norm_like(self, name="embed_norm")(x)
    blocks = Transformer(
      depth=self.depth, heads=self.heads, options=self.options, name="transformer"
    )
    outputs = blocks(x, num_keys=num_keys, change=change, **inputs)
    if self.final_norm:
      norm = norm_like(self, affine=self.final_affine, name="norm")
      outputs[-1] = norm(outputs[-1])
    outputs = [x, *outputs] if embedded_too else outputs
    if mask is not None and self.masked_patches == "silent":
      outputs = [self._in_order(tokens, mask) for tokens in outputs]
    return outputs

  def patch_tokens(self, tokens: Array) -> Array:
    """Of the encoder's output, the tokens of patches alone."""
    return tokens[:, self.num_first :]

  @property
  def num_first(self) -> int:
    """How many tokens stand before those of patches."""
    return self.registers + self.class_token

  def _replaced(self, x: Array, *, token: Array, masked: Array) -> Array:
    """Tokens whose last ones, those of all patches, gave way to another if masked."""
    first = x.shape[1] - masked.shape[1]
    masked = jnp.pad(masked, ((0, 0), (first, 0))) if first else masked
    return jnp.where(masked[..., None], token, x)

  def _in_order(self, tokens: Array, mask: Mask) -> Array:
    """Puts patches back in order that stood as visible and masked ones."""
    restored = gather(self.patch_tokens(tokens), mask.restore_ids)
    return jnp.concatenate([tokens[:, : self.num_first], restored], axis=1)

  def _position_table(self) -> Array:
    """Embeddings of all positions: [N, D]."""
    if self.positions in ("sincos", "sincos_spread"):
      spread = self.positions == "sincos_spread"
      return jnp.asarray(sincos(self.grid, self.width, spread=spread), self.dtype)
    shape = (math.prod(self.grid), self.width)
    init = self.options.drawn.positions
    if self.positions == "learned_sincos":
      fixed = sincos(self.grid, self.width)
      return self.param("positions", lambda *_: jnp.asarray(fixed)).astype(self.dtype)
    return self.param("positions", init, shape).astype(self.dtype)

  def _class_token(self, batch_size: int) -> Array:
    """[B, 1, D]; a learned position of its own would be part of it."""
    return jnp.broadcast_to(self._learned("cls", 1), (batch_size, 1, self.width))

  def _learned(self, name: str, count: int) -> Array:
    """Learned tokens: [1, count, D]."""
    init = self.options.drawn.tokens
    return self.param(name, init, (1, count, self.width)).astype(self.dtype)


class Network(TypedDict, total=False):
  """Hyperparameters that all systems with a vision transformer take as keywords.

  Attributes:
    dtype: `float32` or `bfloat16`, type of the computation; parameters are float32.
    mlp_ratio: hidden width of the MLPs over the width of the tokens; 4 when left out.
    norm_epsilon: added to the variance in layer normalization; 1e-6 when left out.
    initialization: how parameters are drawn at first, a name in
      `maskjax.models.initialization.SCHEMES`; the authors' when left out.
    scan: compile one block and loop over it, see `maskjax.models.BlockOptions`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.BlockOptions`.
  """

  dtype: str
  mlp_ratio: float
  norm_epsilon: float
  initialization: str
  scan: bool
  remat: str


def vit_encoder(
  *,
  grid: Sequence[int],
  encoder: Mapping[str, Any] | str,
  **options: Any,
) -> VisionEncoder:
  """Makes an encoder from hyperparameters, and checks that they fit.

  Args:
    grid: sides of the grid of patches, see `maskjax.tokens.Patches`.
    encoder: a name in `VIT_SIZES`, or a mapping with `size`, or with `width`,
      `depth` and `heads`.
    **options: further fields of `VisionEncoder` and of `BlockOptions`.

  Raises:
    UserError: an option that there is not, or that is out of its range; names it.

  Example:
    >>> vit_encoder(grid=(14, 14), encoder="B", registers=4).depth
    12
  """
  shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  if shape.get("size"):
    shape = {**vit_size(shape.pop("size")), **shape}
  shape = check_shape("encoder", shape)
  own, block_options = split_options(options, VisionEncoder, other=("grid", *shape))
  found = VisionEncoder(
    grid=tuple(grid),
    **shape,
    **own,
    options=block_options,
  )
  for key, known in (("masked_patches", MASKED_PATCHES), ("positions", POSITIONS)):
    value = getattr(found, key)
    if value not in known:
      raise UserError(f"{key}={value!r}: {did_you_mean(str(value), known)}")
  if found.positions == "rotary":
    axes = len(found.grid)
    check_rotary("encoder", width=found.width, heads=found.heads, axes=axes)
  if found.registers < 0:
    raise UserError(f"registers={found.registers}: expected at least 0")
  layer = found.mask_token_layer
  if not 0 <= layer < found.depth:
    raise UserError(
      f"mask_token_layer={layer}: expected at least 0 and less than "
      f"encoder.depth={found.depth}"
    )
  if layer and found.masked_patches != "token":
    raise UserError(
      f"mask_token_layer={layer}: expected masked_patches='token', and not "
      f"{found.masked_patches!r}"
    )
  return found
