"""The vision transformer."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError
from maskjax.masking import Mask, gather
from maskjax.models.dense import Dense
from maskjax.models.gelu import ACTIVATIONS
from maskjax.models.transformer import REMAT, LayerNorm, Transformer
from maskjax.resolve import did_you_mean
from maskjax.tokens import grid_positions, sincos

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
POSITIONS = ("sincos", "learned", "rotary", "relative", "none")


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
  """A ViT over patches, some of which may be masked.

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    masked_patches: what becomes of masked patches: `dropped` them, as MAE does; a learned
      `token` in place of each, as BEiT and SimMIM have it; or `silent`: they attend
      to the visible ones, and nothing attends to them, as in MP3.
    positions: `sincos`, fixed; `learned`; `rotary`, see `maskjax.models.rotary`;
      `relative`, a learned bias of attention by the difference of two places
      (https://arxiv.org/abs/2103.14030, section 3.2), which all blocks share; or
      `none`.
    class_token: put a learned token before the patches.
    registers: how many further learned tokens stand before them, where the encoder may
      note what belongs to no patch (https://arxiv.org/abs/2309.16588).
    embed_bias: give the embedding of patches a bias.
    embed_norm: normalize the tokens before the first block, as CLIP does.
    final_norm: normalize the tokens after the last block.
    norm_epsilon: added to the variance in layer normalization.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  grid: tuple[int, int]
  width: int
  depth: int
  heads: int
  masked_patches: str = "dropped"
  positions: str = "sincos"
  class_token: bool = True
  registers: int = 0
  embed_bias: bool = True
  embed_norm: bool = False
  final_norm: bool = True
  norm_epsilon: float = 1e-6
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  @property
  def drops_paths(self) -> bool:
    """Whether training drops branches of blocks at random."""
    return bool(self.options.get("drop_path"))

  def __call__(self, patches: Array, mask: Mask | None = None) -> Array:
    """Encodes the visible patches, or all without a mask.

    Args:
      patches: [B, N, P].
      mask: which patches the encoder must not see.

    Returns:
      [B, 1 + V, D]: the class token, where there is one, then the visible patches in
      order; [B, 1 + N, D] where others keep the places of the masked ones. Registers,
      where there are such, stand before all.
    """
    return self.every_block(patches, mask)[-1]

  def setup(self) -> None:
    """Makes the bias of relative positions, which further blocks may share."""
    if self.positions == "relative":
      self.relative = RelativeBias(
        grid=self.grid, heads=self.heads, class_token=self.class_token
      )

  @nn.compact
  def every_block(
    self, patches: Array, mask: Mask | None = None, *, embedded_too: bool = False
  ) -> list[Array]:
    """As `__call__`, after each block; `final_norm` is of the last alone.

    Args:
      patches: see `__call__`.
      mask: see `__call__`.
      embedded_too: begin with the tokens before the first block.
    """
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=self.dtype)
    # The places of the patches that are here, in their order; None for all.
    here, num_keys = None, None
    if mask is not None and self.masked_patches == "dropped":
      here = mask.visible_ids
    if mask is not None and self.masked_patches == "silent":
      here = jnp.concatenate([mask.visible_ids, mask.masked_ids], axis=1)
      num_keys = self.num_first + mask.visible_ids.shape[1]
    if here is not None:
      patches = gather(patches, here)
    embed = Dense(self.width, use_bias=self.embed_bias, dtype=self.dtype, name="embed")
    x = embed(patches)
    if self.masked_patches == "token":
      token = self.param("mask_token", nn.initializers.normal(0.02), (self.width,))
      if mask is not None:
        x = jnp.where(mask.masked[..., None], token.astype(self.dtype), x)

    def seen(table: Array | np.ndarray) -> Array | np.ndarray:
      """Of a table of all patches, the rows of those that are here."""
      return table if here is None else jnp.asarray(table)[here]

    where: dict[str, Any] = {}
    if self.positions in ("sincos", "learned"):
      x = x + seen(self._positions())
    if self.positions == "rotary":
      where["places"] = seen(grid_positions(self.grid))
    if self.class_token:
      x = jnp.concatenate([self._class_token(len(x)), x], axis=1)
    if self.registers:
      registers = self._learnt("registers", self.registers)
      x = jnp.concatenate([jnp.tile(registers, (len(x), 1, 1)), x], axis=1)
    if where:
      where["places"] = _with_first(where["places"], self.num_first)
    if self.positions == "relative":
      if here is not None or self.registers:
        raise UserError(
          "positions='relative': expected masked_patches='token' and no registers"
        )
      where["bias"] = self.relative()
    if self.embed_norm:
      x = norm(name="embed_norm")(x)
    blocks = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      dtype=self.dtype,
      name="transformer",
      **self.options,
    )
    outputs = blocks(x, num_keys=num_keys, **where)
    if self.final_norm:
      outputs[-1] = norm(name="norm")(outputs[-1])
    outputs = [x, *outputs] if embedded_too else outputs
    if mask is not None and self.masked_patches == "silent":
      outputs = [self._in_place(tokens, mask) for tokens in outputs]
    return outputs

  def patch_tokens(self, tokens: Array) -> Array:
    """Of what the encoder gives, the tokens of patches alone."""
    return tokens[:, self.num_first :]

  @property
  def num_first(self) -> int:
    """How many tokens stand before those of patches."""
    return self.registers + self.class_token

  def _in_place(self, tokens: Array, mask: Mask) -> Array:
    """Puts patches back that stood in the order of visible and masked ones."""
    restored = gather(self.patch_tokens(tokens), mask.restore_ids)
    return jnp.concatenate([tokens[:, : self.num_first], restored], axis=1)

  def _positions(self) -> Array:
    """Embeddings of all places: [N, D]."""
    if self.positions == "sincos":
      return jnp.asarray(sincos(self.grid, self.width), self.dtype)
    init = nn.initializers.truncated_normal(0.02)
    shape = (self.grid[0] * self.grid[1], self.width)
    return self.param("positions", init, shape).astype(self.dtype)

  def _class_token(self, batch_size: int) -> Array:
    """[B, 1, D]; a learned position of its own would be part of it."""
    return jnp.broadcast_to(self._learnt("cls", 1), (batch_size, 1, self.width))

  def _learnt(self, name: str, count: int) -> Array:
    """Learned tokens: [1, count, D]."""
    init = nn.initializers.normal(0.02)
    return self.param(name, init, (1, count, self.width)).astype(self.dtype)


class RelativeBias(nn.Module):
  """A bias of attention for each difference of two places and each head.

  Attributes:
    grid: rows and columns of tokens; N is their product.
    heads: number of heads H.
    class_token: whether a token without a place stands first; it has biases of its
      own to places, from them, and to itself.
  """

  grid: tuple[int, int]
  heads: int
  class_token: bool = True

  @nn.compact
  def __call__(self) -> Array:
    """float32 [H, 1 + N, 1 + N], or [H, N, N] without a class token."""
    (rows, columns), ids = self.grid, relative_ids(self.grid)
    count = (2 * rows - 1) * (2 * columns - 1)
    if self.class_token:
      ids = np.pad(ids, ((1, 0), (1, 0)))
      ids[0, :], ids[:, 0], ids[0, 0] = count, count + 1, count + 2
      count += 3
    table = self.param("table", nn.initializers.zeros_init(), (count, self.heads))
    return table[ids].transpose(2, 0, 1)


def relative_ids(grid: tuple[int, int]) -> np.ndarray:
  """Numbers the differences of two places of a grid: int [N, N].

  Args:
    grid: R rows and C columns; N is their product.

  Returns:
    Below (2R - 1) * (2C - 1), rows' differences before columns'.
  """
  rows, columns = grid
  at = grid_positions(grid)
  # [N, N, 2] -> [N, N]
  apart = at[:, None] - at[None] + np.array([rows - 1, columns - 1])
  return apart[..., 0] * (2 * columns - 1) + apart[..., 1]


def _with_first(at: Array, count: int) -> Array:
  """Puts places at 0 before others: [..., N, 2] to [..., count + N, 2]."""
  return jnp.pad(at, [(0, 0)] * (at.ndim - 2) + [(count, 0), (0, 0)])


class Network(TypedDict, total=False):
  """Hyperparameters that all systems with a vision transformer take as keywords.

  Attributes:
    dtype: `float32` or `bfloat16`, type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width; 4 when left out.
    norm_epsilon: added to the variance in layer normalization; 1e-6 when left out.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.
  """

  dtype: str
  mlp_ratio: float
  norm_epsilon: float
  scan: bool
  remat: str


def vit_encoder(
  *,
  grid: Sequence[int],
  encoder: Mapping[str, Any] | str,
  dtype: str = "float32",
  norm_epsilon: float = 1e-6,
  **options: Any,
) -> VisionEncoder:
  """Makes an encoder from hyperparameters, and checks that they fit.

  Args:
    grid: sides of the grid of patches, see `maskjax.tokens.Patches`.
    encoder: a name in `VIT_SIZES`, or a mapping with `size`, or with `width`,
      `depth` and `heads`.
    dtype: `float32` or `bfloat16`, type of the computation.
    norm_epsilon: added to the variance in layer normalization.
    **options: further fields of `VisionEncoder` or `Transformer`.

  Raises:
    UserError: names the hyperparameter that does not fit.
  """
  shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  if shape.get("size"):
    shape = {**vit_size(shape.pop("size")), **shape}
  free = (
    *("masked_patches", "positions", "class_token", "registers", "embed_bias"),
    *("embed_norm", "final_norm"),
  )
  own = {key: options.pop(key) for key in free if key in options}
  for key, known in (("masked_patches", MASKED_PATCHES), ("positions", POSITIONS)):
    if key in own and own[key] not in known:
      raise UserError(f"{key}={own[key]!r}: {did_you_mean(str(own[key]), known)}")
  if own.get("registers", 0) < 0:
    raise UserError(f"registers={own['registers']}: expected at least 0")
  return VisionEncoder(
    grid=tuple(grid),
    **check_shape("encoder", shape),
    **own,
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


def check_rotary(role: str, network: Any) -> None:
  """Checks that rotary positions fit the heads of a network called `role`."""
  if network.width // network.heads % 4:
    raise UserError(
      f"{role}.width={network.width}: expected a multiple of 4 channels for each of "
      f"{role}.heads={network.heads}, for rotary positions"
    )


def check_options(options: Mapping[str, Any]) -> FrozenDict[str, Any]:
  """Checks further fields of `Transformer`, and adds those that networks share."""
  shared = {"mlp_ratio": 4.0, "scan": False, "remat": "none"}
  free = (
    *("activation", "drop_path", "gated", "key_bias", "layer_scale", "norm_first"),
    *("rotary_bases", *shared),
  )
  for key in options:
    if key not in free:
      raise UserError(f"no model option {key!r}: {did_you_mean(key, free)}")
  rate = options.get("drop_path", 0.0)
  if not 0 <= rate < 1:
    raise UserError(f"drop_path={rate}: expected at least 0 and less than 1")
  remat = options.get("remat", "none")
  if remat not in ("none", *REMAT):
    raise UserError(f"remat={remat!r}: expected {', '.join(('none', *REMAT))}")
  activation = options.get("activation", "gelu")
  if activation not in ACTIVATIONS:
    hint = did_you_mean(str(activation), ACTIVATIONS)
    raise UserError(f"activation={activation!r}: {hint}")
  if options.get("scan") and not options.get("norm_first", True):
    raise UserError("scan=True: expected norm_first=True, so that all blocks are alike")
  return FrozenDict({**shared, **options})


def check_dtype(dtype: str) -> DTypeLike:
  """Reads the type of the computation by its name."""
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"dtype={dtype!r}: expected 'float32' or 'bfloat16'")
  return jnp.dtype(dtype)


class Classifier(nn.Module):
  """A linear classifier on the mean of an encoder's patch tokens.

  As MAE finetunes: the encoder's own last normalization gives way to one of the
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
    x = self.encoder.patch_tokens(self.encoder(patches))
    x = x.astype(jnp.float32).mean(axis=1)
    x = LayerNorm(epsilon=self.encoder.norm_epsilon, name="norm")(x)
    init = nn.initializers.truncated_normal(2e-5)
    return nn.Dense(self.num_classes, kernel_init=init, name="head")(x)
