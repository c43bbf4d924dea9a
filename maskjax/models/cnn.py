"""Convolutional networks as encoders of images that were cut into patches."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError, did_you_mean
from maskjax.models.block_options import BlockOptions
from maskjax.models.checks import check_dtype
from maskjax.models.convnext import ConvNext
from maskjax.models.resnet import ResNet
from maskjax.tokens import grid_of, unpatchify
from maskjax.tokens.patches import per_side


def _convnext(width: int, depth: int) -> dict[str, Any]:
  widths = tuple(width * 2**i for i in range(4))
  return {"name": "convnext", "widths": widths, "depths": (3, 3, depth, 3)}


_RESNET = {"name": "resnet", "widths": (256, 512, 1024, 2048)}
_NARROW = {"name": "resnet", "widths": (64, 128, 256, 512), "bottleneck": False}

# https://arxiv.org/abs/1512.03385, table 1, and for 200 https://arxiv.org/abs/1603.05027;
# https://arxiv.org/abs/2201.03545, section 3.
CNN_SIZES: Mapping[str, Mapping[str, Any]] = {
  "resnet18": {**_NARROW, "depths": (2, 2, 2, 2)},
  "resnet34": {**_NARROW, "depths": (3, 4, 6, 3)},
  "resnet50": {**_RESNET, "depths": (3, 4, 6, 3)},
  "resnet101": {**_RESNET, "depths": (3, 4, 23, 3)},
  "resnet152": {**_RESNET, "depths": (3, 8, 36, 3)},
  "resnet200": {**_RESNET, "depths": (3, 24, 36, 3)},
  "convnext_t": _convnext(96, 9),
  "convnext_s": _convnext(96, 27),
  "convnext_b": _convnext(128, 27),
  "convnext_l": _convnext(192, 27),
  "convnext_xl": _convnext(256, 27),
}

NETWORKS: Mapping[str, Any] = {"convnext": ConvNext, "resnet": ResNet}


class ConvEncoder(nn.Module):
  """A convolutional network in place of a `VisionEncoder`.

  Attributes:
    grid: rows and columns of patches of a whole image.
    patch_size: (height, width) of a patch in pixels.
    network: a `ResNet` or a `ConvNext`.
  """

  grid: tuple[int, ...]
  patch_size: tuple[int, ...]
  network: Any

  @property
  def dtype(self) -> DTypeLike:
    """Type of the computation."""
    return self.network.dtype

  @property
  def options(self) -> BlockOptions:
    """For layers around it: type of the computation, and initialization."""
    network = self.network
    return BlockOptions(initialization=network.initialization, dtype=network.dtype)

  @property
  def drops_paths(self) -> bool:
    """Whether training drops branches of blocks at random."""
    return self.network.drop_path > 0

  def __call__(self, patches: Array) -> Array:
    """The features of all positions after the last stage: [B, N, P] to [B, K, D]."""
    last = self.stages(patches)[-1]
    # [B, H / stride, W / stride, D] -> [B, K, D]
    return last.reshape(len(last), -1, last.shape[-1])

  def stages(self, patches: Array, masked: Array | None = None) -> list[Array]:
    """The features after each stage, of visible parts.

    Args:
      patches: [B, N, P].
      masked: bool [B, N], True where masked; nothing is when None.

    Returns:
      [B, H / stride, W / stride, width] for each stage.
    """
    images = unpatchify(patches, grid=self.grid, patch_size=self.patch_size)
    # [B, N] -> [B, rows, columns]
    where = None if masked is None else masked.reshape(-1, *self.grid)
    return self.network(images, where)

  def each(self, patches: Array) -> Array:
    """The mean features of each patch by itself: [B, N, P] to [B, N, D]."""
    batch, count, size = patches.shape
    # [B, N, P] -> [B * N, height, width, C]
    alone = patches.reshape(
      batch * count, *self.patch_size, size // (self.patch_size[0] * self.patch_size[1])
    )
    last = self.network(alone)[-1]
    return last.mean(axis=(1, 2)).reshape(batch, count, -1)

  def patch_tokens(self, tokens: Array) -> Array:
    """See `maskjax.models.VisionEncoder`; there is no class token."""
    return tokens


def is_cnn(encoder: Mapping[str, Any] | str) -> bool:
  """Whether hyperparameters are those of a convolutional encoder, or of a ViT.

  Example:
    >>> is_cnn("resnet50"), is_cnn({"size": "B"})
    (True, False)
  """
  shape = {"size": encoder} if isinstance(encoder, str) else encoder
  return "name" in shape or shape.get("size") in CNN_SIZES


def conv_encoder(
  *,
  image_size: int | Sequence[int],
  patch_size: int | Sequence[int] | None,
  encoder: Mapping[str, Any] | str,
  initialization: str = "xavier",
  dtype: str = "float32",
) -> ConvEncoder:
  """Makes a convolutional encoder from hyperparameters, and checks that they fit.

  Args:
    image_size: side, or (height, width), in pixels.
    patch_size: side, or (height, width), in pixels; the network's stride when None.
    encoder: a name in `CNN_SIZES`, or a mapping with `size`, one of these, or with
      `name`, `resnet` or `convnext`, and fields of that network.
    initialization: see `maskjax.models.BlockOptions`; unless `encoder` has one.
    dtype: `float32` or `bfloat16`, type of the computation.

  Raises:
    UserError: a size or network that there is not, or a field of it that is out of its
      range; names it.

  Example:
    >>> conv_encoder(image_size=224, patch_size=None, encoder="resnet50").grid
    (7, 7)
  """
  shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  if size := shape.pop("size", None):
    if size not in CNN_SIZES:
      raise UserError(
        f"no convolutional encoder {size!r}: {did_you_mean(size, CNN_SIZES)}"
      )
    shape = {**CNN_SIZES[size], **shape}
  name = str(shape.pop("name", None))
  if name not in NETWORKS:
    raise UserError(f"encoder.name={name!r}: {did_you_mean(name, NETWORKS)}")
  network = NETWORKS[name]
  fields = set(network.__dataclass_fields__) - {"parent", "name", "dtype"}
  for key in shape:
    if key not in fields:
      raise UserError(f"encoder.{key}: {did_you_mean(key, fields)}")
  stages = {}
  for key in ("widths", "depths"):
    stages[key] = tuple(shape.get(key) or ())
    if not stages[key] or any(not isinstance(n, int) or n < 1 for n in stages[key]):
      raise UserError(
        f"encoder.{key}={shape.get(key)}: expected a positive integer for each stage"
      )
  if len(stages["widths"]) != len(stages["depths"]):
    raise UserError(
      f"encoder.depths={stages['depths']}: expected one for each of "
      f"encoder.widths={stages['widths']}"
    )
  shape = {"initialization": initialization, **shape, **stages}
  built = network(**shape, dtype=check_dtype(dtype))
  BlockOptions(initialization=built.initialization)  # raises where there is none
  if built.stem_stride not in (1, 2, 4):
    raise UserError(f"encoder.stem_stride={built.stem_stride}: expected 1, 2 or 4")
  if not 0 <= built.drop_path < 1:
    raise UserError(
      f"encoder.drop_path={built.drop_path}: expected at least 0 and less than 1"
    )
  patch = per_side(built.stride if patch_size is None else patch_size)
  rows, columns = grid_of(per_side(image_size), patch)
  return ConvEncoder(grid=(rows, columns), patch_size=patch, network=built)
