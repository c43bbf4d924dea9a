"""LocalMIM: masked image modeling with local multi-scale reconstruction.

Masks three quarters of the patches and encodes the rest with a ViT, as MAE does, but
predicts from several of its blocks, not from the last alone: each has a small decoder
of its own, and lower blocks predict histograms of gradients of small regions, upper
blocks those of large ones; the losses are added. So the lower blocks are trained
directly, and learn sooner (https://arxiv.org/abs/2303.05251; of its encoders the one
whose blocks all have as many tokens). Config: `configs/image/localmim.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack, cast

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask, masking_of
from maskjax.models import Decoder, Network, decoder_of, vit_encoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.gelu import gelu
from maskjax.models.transformer import dense_like, norm_like
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.system import System
from maskjax.targets import Hog, Pixels
from maskjax.tokens import patches_of, patchify, unpatchify

SYSTEM = System(
  name="localmim",
  family="image",
  paper="arXiv:2303.05251",
  config="configs/image/localmim.py",
  agrees_with="transformers ViTMAEForPreTraining with layers of torch",
  differs=(
    "Of the authors' encoders the ViT alone.",
    "Histograms without the bias that the filters of the authors' ViT-L have.",
  ),
)


class RegionDecoder(nn.Module):
  """Predicts regions that are smaller or larger than the decoder's patches.

  For smaller ones each token is cut into 2x2, and those again, by deconvolutions whose
  stride is the size of their kernel: dense layers, but for the order of the outputs.
  For larger ones the predictions of neighboring patches are averaged.

  Attributes:
    decoder: predicts a region of the size of a patch, [B, N, size], where nothing is
      cut; else its head is the first deconvolution, of length 4 * W.
    size: length T of the prediction of a region.
    cuts: how often a patch is cut into 2x2 regions; each halves W.
    pool: rows and columns of patches that are one region.
  """

  decoder: Decoder
  size: int
  cuts: int = 0
  pool: int = 1

  @nn.compact
  def __call__(self, encoded: Array, mask: Mask) -> Array:
    """Predicts the regions of masked patches; larger regions all.

    Args:
      encoded: see `Decoder`.
      mask: the mask under which it was encoded.

    Returns:
      float32 [B, M, S * S * T], the SxS regions of a patch by row; larger ones
      [B, N / pool / pool, T].
    """
    x = self.decoder(encoded, mask, self.pool > 1)
    batch, length, width = x.shape
    if self.pool > 1:
      # [B, N, T] -> [B, N / pool / pool, pool * pool * T]
      x = patchify(x.reshape(batch, *self.decoder.grid, width), self.pool)
      return x.reshape(*x.shape[:2], -1, self.size).mean(axis=2)
    for i in range(self.cuts):
      # [B * M, S * S, 4 * W] -> [B * M, 2 * S, 2 * S, W]
      x = x.reshape(batch * length, 4**i, width)
      x = unpatchify(x, grid=(2**i, 2**i), patch_size=2)
      width //= 2
      if i + 1 < self.cuts:
        x = norm_like(self.decoder, name=f"norm_{i + 1}")(x)
        cut = dense_like(self.decoder, width, "deconvolution", name=f"cut_{i + 1}")
        x = cut(gelu(x))
    if self.cuts:
      x = dense_like(self.decoder, self.size, "head", name="head")(x)
    return x.reshape(batch, length, -1).astype(jnp.float32)


class MultiscaleAutoencoder(EncoderModel):
  """The network of LocalMIM (https://arxiv.org/abs/2303.05251, section 3.2).

  Attributes:
    encoder: sees the visible patches only.
    layers: its blocks, counted from 1, whose outputs are decoded; the last one is last.
    decoders: one for each of `layers`.
  """

  layers: tuple[int, ...]
  decoders: Sequence[RegionDecoder]

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> list[Array]:
    """Predicts at each depth: [B, N, P] to the outputs of each of `decoders`."""
    outputs = self.encoder.every_block(patches, mask)
    predictions = []
    for layer, decoder in zip(self.layers, self.decoders, strict=True):
      x = outputs[layer - 1]
      if layer < self.encoder.depth:  # the last are normalized already
        x = norm_like(self.encoder, name=f"norm_{layer}")(x)
      predictions.append(decoder(x, mask))
    return predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalMim(PatchObjective):
  """Predicts regions of several sizes from features of several depths.

  Attributes:
    scales: what is predicted, one target for each of the model's decoders: of patches,
      whose cells are the regions, or of regions that are larger.
    error: of each masked patch or region, from two [B, M, T] to [B, M].
  """

  scales: tuple[Hog | Pixels, ...]
  error: Callable[[Array, Array], Array]

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    return Variables(self.init_params(key, batch))

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Sum over the depths of the mean error of masked regions."""
    return self.loss_of_mask(variables, batch, self.mask(batch, step))

  def loss_of_mask(self, variables: Variables, batch: Batch, mask: Mask) -> Loss:
    """The loss under given masks; the error of each depth is a metric."""
    parts, where = {}, valid(batch)
    for layer, target, predicted in self.predictions(variables, batch, mask):
      targets = target(batch["image"])
      pool = target.patch_size[0] // self.patches.size[0]
      # A region that is larger than a patch counts by its share of masked patches.
      masked = mask.masked.reshape(-1, *self.patches.grid, 1)
      share = patchify(masked, pool).mean(axis=2)
      if pool == 1:
        targets, share = mask.take_masked(targets), mask.take_masked(share)
      errors = (self.error(predicted, targets) * share).sum(axis=1) / share.sum(axis=1)
      parts[f"layer_{layer}"] = Mean.of(errors, where)
    total = jnp.stack([part.sum for part in parts.values()]).sum()
    return Loss(total, where.sum(dtype=jnp.float32), parts)

  def predictions(
    self, variables: Variables, batch: Batch, mask: Mask
  ) -> Iterator[tuple[int, Hog | Pixels, Array]]:
    """Each layer, its target, and its predictions: [B, M, T], of larger regions all."""
    predicted = cast(list[Array], self.apply(variables, self.patches(batch), mask))
    return zip(self.model.layers, self.scales, predicted, strict=True)

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """Images as they are and as the encoder sees them, and each depth's regions.

    The regions of visible patches are drawn as they are, larger ones as predicted.
    """
    images, mask = batch["image"], self.mask(batch, step)
    pictures = {"original": images, "masked": self.masked_images(batch, mask)}
    for layer, target, predicted in self.predictions(variables, batch, mask):
      targets, name = target(images), f"layer {layer:02}"
      if target.patch_size == self.patches.size:
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
    layers: the blocks, counted from 1, whose outputs are decoded; of d blocks the 2nd,
      the 4th, the one before the last but one, and the last, when None.
    scales: for each of `layers` how many regions lie along a patch's side, a power of
      2; or the inverse of how many patches lie along a region's.
    decoder: `width`, `depth`, `heads` of each decoder; 256, 1 and 8 when None.
    target: `hog`, one histogram a channel and region, or `pixels`, normalized by the
      mean and std of their region.
    orientations: bins of a histogram.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: sizes that do not divide, `layers` and `scales` that do not match, no
      such target, or a shape or a ratio out of range; names it.

  Example:
    >>> [target.cell_size for target in localmim(encoder="Ti").scales]
    [(4, 4), (8, 8), (16, 16), (32, 32)]
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  patch = cast(tuple[int, int], patches.size)
  network = {"initialization": "localmim", **network}
  vit = vit_encoder(grid=patches.grid, encoder=encoder, **network)
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
    within = decoder_of(
      vit, shape, patch_dim=length, head="deconvolution" if cuts else "head"
    )
    size = region.size // 4**cuts
    decoders.append(RegionDecoder(decoder=within, size=size, cuts=cuts, pool=pool))
    targets.append(region)
  return LocalMim(
    model=MultiscaleAutoencoder(encoder=vit, layers=layers, decoders=tuple(decoders)),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
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
