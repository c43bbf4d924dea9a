"""LocalMIM: masked image modeling with local multi-scale reconstruction.

Hides three quarters of the patches and encodes the rest with a ViT, as MAE does, but
asks several of its blocks, not the last alone: the codes after each have a small
decoder of their own, and lower blocks predict histograms of gradients of small regions,
upper blocks those of large ones; the losses are added. So the lower blocks are told
directly what to learn, and learn sooner (https://arxiv.org/abs/2303.05251; of its
encoders the one whose blocks all have as many tokens). Config:
`configs/image/localmim.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from maskjax import masking, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask, samplers
from maskjax.models import (
  Decoder,
  MultiscaleAutoencoder,
  RegionDecoder,
  check_shape,
  vit_encoder,
)
from maskjax.objectives.images import ImageObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems import System
from maskjax.targets import Hog, Pixels, Target
from maskjax.tokens import patchify, unpatchify
from maskjax.tokens.patches import pair

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
    regions: what is predicted of regions, one target for each of the model's decoders.
    error: of each hidden patch or region, from two [B, M, T] to [B, M].
  """

  regions: tuple[Target, ...]
  error: Callable[[Array, Array], Array]

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    return Variables(self.init_model(key, batch))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Sum over the depths of the mean error of hidden regions."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)

  def loss_under(self, mask: Mask, params: Any, batch: Batch) -> Loss:
    """The loss of given masks; what each depth adds to it is a metric."""
    predictions = self.model.apply({"params": params}, self.patches(batch), mask)
    where, parts = valid(batch), {}
    for i, (layer, predicted) in enumerate(
      zip(self.model.layers, predictions, strict=True)
    ):
      targets, pool = self.targets_at(i, batch["image"]), self.model.decoders[i].pool
      if pool == 1:
        errors = self.error(predicted, mask.masked(targets)).mean(axis=1)
      else:
        # What is partly hidden counts by its hidden share.
        hidden = mask.hidden.reshape(-1, *self.grid, 1).astype(jnp.float32)
        share = patchify(hidden, pool).mean(axis=2)
        errors = self.error(predicted, targets) * share
        errors = errors.sum(axis=1) / share.sum(axis=1)
      parts[f"layer_{layer}"] = errors
    total = Mean.of(jnp.stack([*parts.values()]).sum(axis=0), where)
    return Loss.of(total, **{k: Mean.of(part, where) for k, part in parts.items()})

  def targets_at(self, i: int, images: Array) -> Array:
    """What decoder `i` is to say of all patches: [B, H, W, C] to [B, N, S * S * T].

    Of regions that are larger than patches [B, N / pool / pool, T].
    """
    targets, side = self.regions[i](images), 2 ** self.model.decoders[i].cuts
    if side == 1:
      return targets
    rows, columns = self.grid
    return patchify(
      targets.reshape(len(targets), rows * side, columns * side, -1), side
    )

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """Images as they are and as the encoder sees them, and each depth's regions.

    The regions of visible patches are drawn as they are, larger ones as predicted.
    """
    images, patches, mask = batch["image"], self.patches(batch), self.mask(batch, key)
    predictions = self.model.apply({"params": params}, patches, mask)
    seen = jnp.where(mask.hidden[..., None], patches.mean(), patches)
    seen = unpatchify(seen, grid=self.grid, patch_size=self.patch_size)
    pictures = {"original": images, "masked": seen}
    for i, (region, predicted) in enumerate(
      zip(self.regions, predictions, strict=True)
    ):
      decoder, targets = self.model.decoders[i], self.targets_at(i, images)
      if decoder.pool == 1:
        drawn = mask.restore(mask.visible(targets), predicted)
        drawn = unpatchify(drawn, grid=self.grid, patch_size=2**decoder.cuts)
        predicted = drawn.reshape(len(drawn), -1, drawn.shape[-1])
      name = f"layer {self.model.layers[i]:02}"
      pictures[name] = region.draw(region(images), images)
      pictures[f"{name} predicted"] = region.draw(predicted, images)
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
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-6,
  scan: bool = False,
  remat: str = "none",
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
    target: `hog`, one histogram a channel and region, or `pixels`, normalised by the
      mean and deviation of their region.
    orientations: bins of a histogram.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is hidden.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: see `maskjax.models.Transformer`.
    remat: see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> [region.cell_size for region in localmim(encoder="Ti").regions]
    [(4, 4), (8, 8), (16, 16), (32, 32)]
  """
  patch = pair(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    dtype=dtype,
    norm_epsilon=norm_epsilon,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  if layers is None:
    layers = (2, 4, vit.depth - 2, vit.depth)
  if list(layers) != sorted({*layers} & {*range(1, vit.depth + 1)}) or not (
    len(layers) == len(scales) and layers[-1] == vit.depth
  ):
    raise UserError(
      f"layers={tuple(layers)}: expected one block for each of scales={tuple(scales)}, "
      f"ascending from 1 at least to encoder.depth={vit.depth}"
    )
  shape = check_shape(
    "decoder", {"width": 256, "depth": 1, "heads": 8, **(decoder or {})}
  )
  decoders, regions = [], []
  for scale in scales:
    cuts, pool = _cuts_and_pool(scale, patch=patch, grid=vit.grid)
    if shape["width"] % 2**cuts:
      raise UserError(
        f"decoder.width={shape['width']}: expected a multiple of {2**cuts}, the "
        "largest of scales"
      )
    region = _region(
      target,
      patch_size=(patch[0] // 2**cuts * pool, patch[1] // 2**cuts * pool),
      channels=channels,
      orientations=orientations,
    )
    regions.append(region)
    decoders.append(
      RegionDecoder(
        decoder=Decoder(
          grid=vit.grid,
          patch_dim=2 * shape["width"] if cuts else region.size,
          norm_epsilon=vit.norm_epsilon,
          options=vit.options,
          dtype=vit.dtype,
          **shape,
        ),
        size=region.size,
        cuts=cuts,
        pool=pool,
      )
    )
  return LocalMim(
    model=MultiscaleAutoencoder(
      encoder=vit, layers=tuple(layers), decoders=tuple(decoders)
    ),
    sampler=resolve.bind(samplers, mask),
    num_hidden=masking.num_hidden(vit.grid[0] * vit.grid[1], mask_ratio),
    regions=tuple(regions),
    error=squared_error,
    patch_size=patch,
    channels=channels,
  )


def _cuts_and_pool(
  scale: float, *, patch: tuple[int, int], grid: tuple[int, int]
) -> tuple[int, int]:
  """How often a patch is cut in halves, and how many are joined; one is nothing."""
  positive = max(scale, 1e-9)
  cuts, pool = max(0, round(math.log2(positive))), max(1, round(1 / positive))
  rest = [side % 2**cuts for side in patch] + [side % pool for side in grid]
  if 2**cuts / pool != scale or any(rest):
    raise UserError(
      f"scales: {scale}: expected a power of 2 that divides "
      f"patch_size={patch[0]}x{patch[1]}, or the inverse of a divisor of the grid of "
      f"{grid[0]}x{grid[1]} patches"
    )
  return cuts, pool


def _region(
  target: str, *, patch_size: tuple[int, int], channels: int, orientations: int
) -> Target:
  """What is predicted of regions of this size."""
  if target == "pixels":
    return Pixels(patch_size=patch_size, channels=channels, normalized=True)
  if target == "hog":
    return Hog(
      patch_size=patch_size,
      cell_size=patch_size,
      channels=channels,
      orientations=orientations,
    )
  raise UserError(f"target={target!r}: expected 'hog' or 'pixels'")
