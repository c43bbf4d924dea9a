"""The Swin transformer, of both versions: attention in windows that shift.

Swin v1: https://arxiv.org/abs/2103.14030. Swin v2: https://arxiv.org/abs/2111.09883.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError, did_you_mean
from maskjax.masking import Mask
from maskjax.models.attention import Attention
from maskjax.models.block_options import BlockOptions
from maskjax.models.dense import Dense
from maskjax.models.dropout import stochastic_depth
from maskjax.models.initialization import LayerInit
from maskjax.models.relative_bias import RelativeBias, relative_ids
from maskjax.models.transformer import Mlp, dense_like, norm_like, remat_of
from maskjax.sharding import constrain_batch
from maskjax.tokens import grid_of
from maskjax.tokens.patches import per_side

# Widths, depths and heads of 32 channels: https://arxiv.org/abs/2103.14030, section
# 3.3, and for H, which is of the second version, https://arxiv.org/abs/2111.09883,
# section 3.6.
SWIN_SIZES: Mapping[str, Mapping[str, Any]] = {
  "T": {"width": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)},
  "S": {"width": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24)},
  "B": {"width": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
  "L": {"width": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48)},
  "H": {
    "width": 352,
    "depths": (2, 2, 18, 2),
    "heads": (11, 22, 44, 88),
    "norm_every": 6,
  },
}


class SwinEncoder(nn.Module):
  """A Swin over patches; masked ones give way to a learned token.

  Between two stages the squares of 2x2 tokens are merged, with zeros below and to the
  right of a grid of odd sides.

  Attributes:
    grid: rows and columns of patches of a whole image; N is their product.
    width: channels of the first stage, twice as many in each further one.
    depths: number of blocks of each stage.
    heads: number of attention heads of each stage.
    window: rows and columns of tokens of a window.
    version: 1, or 2: attention by cosine, a continuous bias of it, and normalization
      at the end of each branch.
    norm_every: normalize the tokens themselves after each so many blocks of a stage,
      as the largest ones of the second version do; 0 for never.
    masks: whether there is a learned token for masked patches.
    options: of the blocks, of which `mlp_ratio`, `norm_epsilon`, `drop_path`,
      `initialization`, `remat` and `dtype` are read.
  """

  grid: tuple[int, int]
  width: int
  depths: tuple[int, ...]
  heads: tuple[int, ...]
  window: int = 7
  version: int = 1
  norm_every: int = 0
  masks: bool = True
  options: BlockOptions = BlockOptions(norm_epsilon=1e-5)

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

  @property
  def stride(self) -> int:
    """Rows and columns of patches that a token stands for in the end."""
    return 2 ** (len(self.depths) - 1)

  @nn.compact
  def __call__(self, patches: Array, mask: Mask | None = None) -> Array:
    """Encodes patches [B, N, P].

    Args:
      patches: [B, N, P].
      mask: which patches the encoder must not see; it sees all without.

    Returns:
      [B, n, E]: n tokens of `stride` x `stride` patches each, row by row, of
      `width * stride` channels.
    """
    norm = functools.partial(norm_like, self)
    x = dense_like(self, self.width, "patches", name="embed")(patches)
    x = norm(name="embed_norm")(x)
    token = None
    if self.masks:
      token = self.param("mask_token", self.options.drawn.mask_token, (self.width,))
    if mask is not None:
      assert token is not None
      x = jnp.where(mask.masked[..., None], token.astype(self.dtype), x)
    x = x.reshape(-1, *self.grid, self.width)
    block = remat_of(SwinBlock, self.options.remat)
    rates = iter(jnp.linspace(0.0, self.options.drop_path, sum(self.depths)))
    for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
      if stage > 0:
        merging = PatchMerging(
          version=self.version,
          options=self.options,
          name=f"merging_{stage}",
        )
        x = merging(x)
      for i in range(depth):
        layer = block(
          heads=heads,
          window=self.window,
          shifts=i % 2 == 1,
          version=self.version,
          options=self.options,
          name=f"stage_{stage}_block_{i}",
        )
        x = layer(x, next(rates))
        if self.norm_every and (i + 1) % self.norm_every == 0:
          x = norm(name=f"stage_{stage}_norm_{i}")(x)
    # [B, rows, columns, E] -> [B, n, E]
    return norm(name="norm")(x.reshape(len(x), -1, x.shape[-1]))

  def patch_tokens(self, tokens: Array) -> Array:
    """See `maskjax.models.VisionEncoder`; there is no class token."""
    return tokens


class SwinBlock(nn.Module):
  """A transformer block whose attention stays in windows.

  A grid that the windows do not divide is padded with zeros below and to the right, to
  which the others attend as to tokens; a window larger than the grid's shorter side is
  as large as that side, and does not shift.

  Attributes:
    heads: number of attention heads.
    window: rows and columns of tokens of a window.
    shifts: move the windows by half their side, over the edge of the grid to the
      other one; tokens that come from opposite edges do not attend to each other.
    version: see `SwinEncoder`.
    options: see `SwinEncoder`.
  """

  heads: int
  window: int
  shifts: bool
  version: int = 1
  options: BlockOptions = BlockOptions(norm_epsilon=1e-5)

  @nn.compact
  def __call__(self, x: Array, drop_path: Array | float = 0.0) -> Array:
    """[B, rows, columns, D] to the same; `drop_path` as in `Block`."""
    x = constrain_batch(x)
    # The branches of the second version begin as nothing, as its authors' do.
    ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
    first = self.version == 1

    def norm(name: str) -> nn.LayerNorm | nn.RMSNorm:
      return norm_like(self, scale_init=ones if first else zeros, name=name)

    def branch(x: Array, name: str, transform: Any) -> Array:
      y = transform(norm(f"{name}_norm")(x)) if first else transform(x)
      y = y if first else norm(f"{name}_norm")(y)
      return x + stochastic_depth(self, y, drop_path)

    options = self.options
    mlp = Mlp(
      ratio=options.mlp_ratio,
      drawn=options.drawn.inner,
      dtype=options.dtype,
      name="mlp",
    )
    return branch(branch(x, "attention", self.in_windows), "mlp", mlp)

  def in_windows(self, x: Array) -> Array:
    """Attention inside each window: [B, rows, columns, D] to the same."""
    batch, rows, columns, _ = x.shape
    side = min(self.window, rows, columns)
    shift = side // 2 if self.shifts and side < min(rows, columns) else 0
    x = jnp.pad(x, ((0, 0), (0, -rows % side), (0, -columns % side), (0, 0)))
    grid = (x.shape[1], x.shape[2])
    x = jnp.roll(x, (-shift, -shift), (1, 2))
    bias = self.bias(side)
    if shift:
      unseen = across_edges(grid, side, shift)
      # [H, w * w, w * w] -> [windows, H, w * w, w * w] -> [B * windows, ...]
      bias = jnp.where(unseen[:, None], -jnp.inf, bias)
      bias = jnp.tile(bias, (batch, 1, 1, 1))
    windows = to_windows(x, side)
    second = self.version == 2
    attention = Attention(
      heads=self.heads,
      key_bias=not second,
      cosine=second,
      drawn=self.options.drawn.attention(),
      dtype=self.options.dtype,
      name="attention",
    )
    x = from_windows(attention(windows, windows, bias=bias), grid, side)
    return jnp.roll(x, (shift, shift), (1, 2))[:, :rows, :columns]

  def bias(self, side: int) -> Array:
    """Of the attention in a window of that side: float32 [H, w * w, w * w]."""
    if self.version == 2:
      return ContinuousBias(
        side=side, heads=self.heads, drawn=self.options.drawn.inner, name="relative"
      )()
    return RelativeBias(
      grid=(side, side),
      heads=self.heads,
      class_token=False,
      init_table=self.options.drawn.relative,
      name="relative",
    )()


class ContinuousBias(nn.Module):
  """A bias of attention that a small network computes from the offset of two positions.

  The offsets are spaced by their logarithms, so that windows of other sides have few
  that were never seen (https://arxiv.org/abs/2111.09883, section 3.3). As its
  authors have it, they are first stretched to [-8, 8], and the bias is at most 16.

  Attributes:
    side: rows and columns of the window.
    heads: number of heads H.
    hidden: width of the network.
    drawn: how its layers are, at first.
  """

  side: int
  heads: int
  hidden: int = 512
  drawn: LayerInit = LayerInit()

  @nn.compact
  def __call__(self) -> Array:
    """float32 [H, w * w, w * w]."""
    offsets = np.indices((2 * self.side - 1,) * 2).reshape(2, -1).T - (self.side - 1)
    stretched = 8 * offsets / max(self.side - 1, 1)
    spaced = np.sign(stretched) * np.log2(np.abs(stretched) + 1) / 3
    drawn = self.drawn._asdict()
    x = Dense(self.hidden, **drawn, name="up")(jnp.asarray(spaced, jnp.float32))
    x = Dense(self.heads, use_bias=False, **drawn, name="down")(jax.nn.relu(x))
    # [(2w - 1)^2, H] -> [w * w, w * w, H] -> [H, w * w, w * w]
    table = 16 * jax.nn.sigmoid(x)
    return table[relative_ids((self.side, self.side))].transpose(2, 0, 1)


class PatchMerging(nn.Module):
  """Makes one token of each square of 2x2, of twice as many channels.

  Attributes:
    version: 1 normalizes before the dense layer, 2 after it.
    options: see `SwinEncoder`.
  """

  version: int = 1
  options: BlockOptions = BlockOptions(norm_epsilon=1e-5)

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, rows, columns, D] to [B, ceil(rows / 2), ceil(columns / 2), 2 * D]."""
    norm = norm_like(self, name="norm")
    batch, rows, columns, width = x.shape
    x = jnp.pad(x, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
    # [B, R, 2, C, 2, D] -> [B, R, C, 2, 2, D], of the square first its left column
    x = x.reshape(batch, -(-rows // 2), 2, -(-columns // 2), 2, width)
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(*x.shape[:2], x.shape[3], 4 * width)
    dense = dense_like(self, 2 * width, use_bias=False, name="dense")
    return dense(norm(x)) if self.version == 1 else norm(dense(x))


def to_windows(x: Array, side: int) -> Array:
  """Cuts a grid into windows.

  Args:
    x: [B, rows, columns, D].
    side: of a window; divides rows and columns.

  Returns:
    [B * windows, side * side, D], windows and what is in them row by row.
  """
  batch, rows, columns, width = x.shape
  x = x.reshape(batch, rows // side, side, columns // side, side, width)
  # [B, R, w, C, w, D] -> [B, R, C, w, w, D] -> [B * R * C, w * w, D]
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, side * side, width)


def from_windows(windows: Array, grid: tuple[int, int], side: int) -> Array:
  """The inverse of `to_windows`.

  Example:
    >>> x = jnp.arange(48.0).reshape(2, 4, 6, 1)
    >>> bool((from_windows(to_windows(x, 2), (4, 6), 2) == x).all())
    True
  """
  (rows, columns), width = grid, windows.shape[-1]
  x = windows.reshape(-1, rows // side, columns // side, side, side, width)
  # [B, R, C, w, w, D] -> [B, R, w, C, w, D] -> [B, rows, columns, D]
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, width)


def across_edges(grid: tuple[int, int], side: int, shift: int) -> np.ndarray:
  """Which tokens of a shifted window come from opposite edges of the grid.

  Args:
    grid: rows and columns.
    side: of a window; divides both.
    shift: by how much the windows were moved.

  Returns:
    bool [windows, side * side, side * side].

  Example:
    >>> across_edges((2, 4), 2, 1)[0].astype(int).tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
  """
  # Tokens that went over the edge stand at the end.
  ends = [np.arange(length) >= length - shift for length in grid]
  regions = 2 * ends[0][:, None] + ends[1]
  rows, columns = grid
  # [R, w, C, w] -> [R, C, w, w] -> [R * C, w * w]
  cut = regions.reshape(rows // side, side, columns // side, side)
  windows = cut.transpose(0, 2, 1, 3).reshape(-1, side * side)
  return windows[:, :, None] != windows[:, None, :]


def swin_encoder(
  *,
  image_size: int | Sequence[int],
  patch_size: int | Sequence[int],
  encoder: Mapping[str, Any] | str,
  version: int = 1,
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-5,
  drop_path: float = 0.0,
  initialization: str = "swin",
  remat: str = "none",
) -> SwinEncoder:
  """Makes an encoder from hyperparameters, and checks that they fit.

  Args:
    image_size: side, or (height, width), in pixels.
    patch_size: side, or (height, width), in pixels.
    encoder: a name in `SWIN_SIZES`, or a mapping with `size`, or with `width`,
      `depths` and `heads`; and with `window` and `norm_every` where they are not the
      size's.
    version: 1 or 2.
    dtype: `float32` or `bfloat16`, type of the computation.
    mlp_ratio: see `maskjax.models.BlockOptions`.
    norm_epsilon: likewise.
    drop_path: likewise.
    initialization: likewise.
    remat: likewise.

  Raises:
    UserError: a shape that no Swin has, or an option out of its range; names it.

  Example:
    >>> swin_encoder(image_size=192, patch_size=4, encoder="B").stride
    8
  """
  shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  if size := shape.pop("size", None):
    if size not in SWIN_SIZES:
      raise UserError(f"no Swin size {size!r}: {did_you_mean(size, SWIN_SIZES)}")
    shape = {**SWIN_SIZES[size], **shape}
  rows, columns = grid_of(per_side(image_size), per_side(patch_size))
  return SwinEncoder(
    grid=(rows, columns),
    **_checked(shape),
    version=version,
    options=BlockOptions(
      mlp_ratio=mlp_ratio,
      norm_epsilon=norm_epsilon,
      drop_path=drop_path,
      initialization=initialization,
      remat=remat,
      dtype=dtype,
    ),
  )


def _checked(shape: Mapping[str, Any]) -> dict[str, Any]:
  """Checks the mapping `encoder`."""
  known = ("width", "depths", "heads", "window", "norm_every")
  for key in shape:
    if key not in known:
      raise UserError(f"encoder.{key}: {did_you_mean(key, known)}")
  least = {"width": 1, "window": 1, "norm_every": 0}
  shape = {"window": SwinEncoder.window, "norm_every": 0, **shape}
  for key, smallest in least.items():
    value = shape.get(key)
    if not isinstance(value, int) or value < smallest:
      raise UserError(
        f"encoder.{key}={value}: expected an integer of at least {smallest}"
      )
  for key in ("depths", "heads"):
    values = shape.get(key)
    if not isinstance(values, Sequence) or not values:
      raise UserError(f"encoder.{key}={values}: expected an integer for each stage")
    if any(not isinstance(n, int) or n < 1 for n in values):
      raise UserError(f"encoder.{key}={tuple(values)}: expected positive integers")
  depths, heads = tuple(shape["depths"]), tuple(shape["heads"])
  if len(depths) != len(heads):
    raise UserError(
      f"encoder.heads={heads}: expected one for each stage of encoder.depths={depths}"
    )
  for stage, number in enumerate(heads):
    width = shape["width"] * 2**stage
    if width % number:
      raise UserError(
        f"encoder.heads={heads}: expected divisors of the stages' widths, {number} "
        f"does not divide {width}"
      )
  return {**shape, "depths": depths, "heads": heads}
