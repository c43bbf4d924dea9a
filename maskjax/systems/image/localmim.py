"""LocalMIM: masked image modeling with local multi-scale reconstruction.

Masks three quarters of the patches and encodes the rest with a ViT, as MAE does, but
asks several of its blocks, not the last alone: the codes after each have a small
decoder of their own, and lower blocks predict histograms of gradients of small regions,
upper blocks those of large ones; the losses are added. So the lower blocks are told
directly what to learn, and learn sooner (https://arxiv.org/abs/2303.05251; of its
encoders the one whose blocks all have as many tokens). Config:
`configs/image/localmim.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask
from maskjax.models import (
  MultiscaleAutoencoder,
  Network,
  RegionDecoder,
  decoder_of,
  vit_encoder,
)
from maskjax.objectives.images import ImageObjective, masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems.system import System
from maskjax.targets import Hog, Pixels
from maskjax.tokens import patchify
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="localmim",
  family="image",
  paper="arXiv:2303.05251",
  config="configs/image/localmim.py",
  agrees_with="transformers ViTMAEForPreTraining with layers of torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalMim(ImageObjective):
  """Predicts regions of several sizes from codes of several depths.

  Attributes:
    scales: what is predicted, one target for each of the model's decoders: of patches,
      whose cells are the regions, or of regions that are larger.
    error: of each masked patch or region, from two [B, M, T] to [B, M].
  """

  scales: tuple[Hog | Pixels, ...]
  error: Callable[[Array, Array], Array]

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    return Variables(self.init_model(key, batch))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Sum over the depths of the mean error of masked regions."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)

  def loss_under(self, mask: Mask, params: Any, batch: Batch) -> Loss:
    """The loss of given masks; what each depth adds to it is a metric."""
    parts, where = {}, valid(batch)
    for layer, target, predicted in self.predictions(mask, params, batch):
      targets = target(batch["image"])
      pool = target.patch_size[0] // self.patch_size[0]
      # A region that is larger than a patch counts by its share of masked patches.
      share = patchify(mask.masked.reshape(-1, *self.grid, 1), pool).mean(axis=2)
      if pool == 1:
        targets, share = mask.take_masked(targets), mask.take_masked(share)
      errors = (self.error(predicted, targets) * share).sum(axis=1) / share.sum(axis=1)
      parts[f"layer_{layer}"] = Mean.of(errors, where)
    total = jnp.stack([part.sum for part in parts.values()]).sum()
    return Loss(total, where.sum(dtype=jnp.float32), parts)

  def predictions(
    self, mask: Mask, params: Any, batch: Batch
  ) -> Iterator[tuple[int, Hog | Pixels, Array]]:
    """Each layer, its target, and its predictions: [B, M, T], of larger regions all."""
    patches = self.patches(batch)
    predicted = self.model.apply({"params": params}, patches, mask)
    return zip(self.model.layers, self.scales, predicted, strict=True)

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """Images as they are and as the encoder sees them, and each depth's regions.

    The regions of visible patches are drawn as they are, larger ones as predicted.
    """
    images, mask = batch["image"], self.mask(batch, key)
    pictures = {"original": images, "masked": self.masked_images(batch, mask)}
    for layer, target, predicted in self.predictions(mask, params, batch):
      targets, name = target(images), f"layer {layer:02}"
      if target.patch_size == self.patch_size:
        predicted = mask.restore(mask.take_visible(targets), predicted)
      pictures[name] = target.draw(targets, images)
      pictures[f"{name} predicted"] = target.draw(predicted, images)
    return pictures


def localmim(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  layers: Sequence[int] | None = None,
  scales: Sequence[float] = (4, 2, 1, 0.5),
  decoder: Mapping[str, Any] | None = None,
  target: str = "hog",
  orientations: int = 9,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  **network: Unpack[Network],
) -> LocalMim:
  """Makes LocalMIM from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    layers: the blocks, counted from 1, whose codes are decoded; of d blocks the 2nd,
      the 4th, the one before the last but one, and the last, when None.
    scales: for each of `layers` how many regions stand along a patch's side, a power
      of 2; or the inverse of how many patches stand along a region's.
    decoder: `width`, `depth`, `heads` of each decoder; 256, 1 and 8 when None.
    target: `hog`, one histogram a channel and region, or `pixels`, normalized by the
      mean and std of their region.
    orientations: bins of a histogram.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> [target.cell_size for target in localmim(encoder="Ti").scales]
    [(4, 4), (8, 8), (16, 16), (32, 32)]
  """
  patch = per_side(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    **network,
  )
  layers = tuple(layers or (2, 4, vit.depth - 2, vit.depth))
  ascending = sorted({*layers} & {*range(1, vit.depth + 1)})
  if list(layers) != ascending or (len(layers), layers[-1]) != (len(scales), vit.depth):
    raise UserError(
      f"layers={layers}: expected one block for each of scales={tuple(scales)}, "
      f"ascending from 1 at least to encoder.depth={vit.depth}"
    )
  kinds: Mapping[str, Callable[..., Hog | Pixels]] = {
    "hog": functools.partial(Hog, orientations=orientations),
    "pixels": functools.partial(Pixels, normalized=True),
  }
  if target not in kinds:
    raise UserError(f"target={target!r}: expected 'hog' or 'pixels'")
  shape = {"width": 256, "depth": 1, "heads": 8, **(decoder or {})}
  targets, decoders = [], []
  for scale in scales:
    cuts, pool = _cuts_and_pool(scale, patch, vit.grid)
    region = kinds[target](
      patch_size=(patch[0] * pool, patch[1] * pool),
      cell_size=(patch[0] * pool // 2**cuts, patch[1] * pool // 2**cuts),
      channels=channels,
    )
    if shape["width"] % 2**cuts:
      raise UserError(
        f"decoder.width={shape['width']}: expected a multiple of scales={scale}"
      )
    length = 2 * shape["width"] if cuts else region.size
    within = decoder_of(vit, shape, patch_dim=length)
    size = region.size // 4**cuts
    decoders.append(RegionDecoder(decoder=within, size=size, cuts=cuts, pool=pool))
    targets.append(region)
  return LocalMim(
    model=MultiscaleAutoencoder(encoder=vit, layers=layers, decoders=tuple(decoders)),
    **masks(vit, mask, mask_ratio, patch_size=patch, channels=channels),
    scales=tuple(targets),
    error=squared_error,
  )


def _cuts_and_pool(
  scale: float, patch: tuple[int, int], grid: tuple[int, ...]
) -> tuple[int, int]:
  """How often a patch is cut in halves, and how many in a row are joined."""
  if scale > 0:
    cuts, pool = max(0, round(math.log2(scale))), max(1, round(1 / scale))
    rest = [side % 2**cuts for side in patch] + [side % pool for side in grid]
    if scale == 2**cuts / pool and not any(rest):
      return cuts, pool
  raise UserError(
    f"scales={scale}: expected a power of 2 that divides patch_size="
    f"{patch[0]}x{patch[1]}, or 1/n where n divides the grid of {grid[0]}x{grid[1]}"
  )
