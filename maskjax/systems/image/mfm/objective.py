"""MFM: masked frequency modeling for self-supervised visual pre-training.

Masks frequencies of the image instead of patches: all above a radius of the shifted
spectrum, or all below it, drawn at random for each image. What is left is an image
again, cut off at black and white, which the encoder, a ViT or a CNN, sees without any
mask token; a linear layer predicts the whole image, and the loss is the distance of its
spectrum from the true one at the masked frequencies
(https://arxiv.org/abs/2206.07706). Config: `configs/image/mfm.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, positive
from maskjax.losses import Loss, Mean
from maskjax.models import Network, conv_encoder, is_cnn, vit_encoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import dense_like
from maskjax.objectives import batch_statistics
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.image.mfm.frequencies import (
  draw_spectrum,
  from_spectrum,
  low_or_high,
  spectral_distance,
  spectrum,
)
from maskjax.systems.system import System
from maskjax.tokens import patches_of, patchify
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="mfm",
  family="image",
  paper="arXiv:2206.07706",
  config="configs/image/mfm.py",
  agrees_with="torch.fft, scipy.fft",
  differs=(
    "The class token has no position of its own, which would be added to it.",
    "Computation in bfloat16 but for the spectra; the authors' is in float16.",
    "The error is the mean over the masked frequencies of the whole batch; the authors "
    "average it over devices, of which some mask more frequencies than others.",
    "ResNets normalize by the whole batch; the authors' by a device's part of it.",
  ),
)

# The paper's ViT is BEiT's, with positions that are added.
VIT_OPTIONS: Mapping[str, Any] = {"positions": "learned", "key_bias": False}


class LinearDecoder(EncoderModel):
  """An encoder of whole images with a linear head.

  Attributes:
    encoder: a `VisionEncoder`, or a `ConvEncoder` with one feature vector a patch.
    size: length T of a prediction.
  """

  size: int

  @nn.compact
  def __call__(self, patches: Array) -> Array:
    """Predicts all patches: [B, N, P] to float32 [B, N, T]."""
    x = self.encoder.patch_tokens(self.encoder(patches))
    head = dense_like(self.encoder, self.size, "head", name="head")
    return head(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mfm(PatchObjective):
  """The objective of MFM; `mfm` makes it from hyperparameters.

  Attributes:
    radius: of the low frequencies, in entries of the spectrum.
    low_pass: probability that the high frequencies of an image are masked, not the low.
    gamma: exponent of the distance of two frequencies.
    focal: exponent of the weights of hard frequencies; 0 weighs all the same.
    colors: mean and std of each channel by which the images are normalized, so that
      corrupted ones can be cut off at black and white; None does not cut them off.
  """

  radius: float
  low_pass: float
  gamma: float
  focal: float
  colors: tuple[tuple[float, ...], tuple[float, ...]] | None

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and running averages where the encoder has such."""
    return batch_statistics.init(self.model, key, self.patches(batch)[:1])

  def masked_frequencies(self, batch: Batch, step: Step) -> Array:
    """The frequencies of each image that are masked in a step: bool [B, H, W]."""
    size = batch["image"].shape[1:3]
    example_keys = keys.example_keys(keys.named(step.key, "mask"), batch)
    return jax.vmap(
      lambda k: low_or_high(k, size, radius=self.radius, low_pass=self.low_pass)
    )(example_keys)

  def corrupted(self, batch: Batch, step: Step) -> tuple[Array, Array]:
    """Images without their masked frequencies, [B, H, W, C], and these.

    Without its low frequencies an image lies around black, and is half cut off: the
    authors' images are so, from 0 to 1, before they are normalized.
    """
    self.patches(batch)  # refuses images of another shape
    masked = self.masked_frequencies(batch, step)

    def without_masked(images: Array) -> Array:
      return from_spectrum(jnp.where(masked[..., None], 0, spectrum(images)))

    if self.colors is None:
      return without_masked(batch["image"]), masked
    mean, std = map(jnp.asarray, self.colors)
    seen = jnp.clip(without_masked(batch["image"] * std + mean), 0, 1)
    return (seen - mean) / std, masked

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean distance of the masked frequencies; a CNN normalizes by the batch."""
    images, masked = self.corrupted(batch, step)
    patches = patchify(images, self.patches.size)
    predicted, sums = batch_statistics.apply(self.model, variables.params, patches)
    found = self._distance(predicted, masked, batch)
    return dataclasses.replace(found, sums=sums)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean distance of the masked frequencies; a CNN normalizes by its averages."""
    images, masked = self.corrupted(batch, step)
    predicted = self.predictions(variables, images)
    return self._distance(predicted, masked, batch)

  def predictions(self, variables: Variables, images: Array) -> Array:
    """Whole images as patches [B, N, P], from corrupted ones [B, H, W, C]."""
    patches = patchify(images, self.patches.size)
    return cast(Array, self.apply(variables, patches))

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the running averages, where the encoder has such."""
    del batch, step
    return batch_statistics.update(variables, sums)

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """Images as they are, as the encoder sees them, and with predicted frequencies.

    And their spectra: as it is, with its visible frequencies alone, and with the
    predicted ones.
    """
    images, masked = self.corrupted(batch, step)
    predicted = self.patches.join(self.predictions(variables, images))
    target, masked = spectrum(batch["image"]), masked[..., None]
    spectra = {
      "target": target,
      "seen": jnp.where(masked, 0, target),
      "predicted": jnp.where(masked, spectrum(predicted), target),
    }
    return {
      "original": batch["image"],
      "masked": images,
      "reconstructed": from_spectrum(spectra["predicted"]),
      **{k: draw_spectrum(v, batch["image"]) for k, v in spectra.items()},
    }

  def _distance(self, predicted: Array, masked: Array, batch: Batch) -> Loss:
    """The loss of predictions [B, N, P]."""
    distances = spectral_distance(
      spectrum(self.patches.join(predicted)),
      spectrum(batch["image"]),
      gamma=self.gamma,
      focal=self.focal,
    )
    where = masked & valid(batch)[:, None, None]
    return Loss.of(Mean.of(distances, where[..., None]))


def mfm(
  *,
  mean: float | Sequence[float] | None,
  std: float | Sequence[float] | None,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] | None = None,
  encoder: Mapping[str, Any] | str = "B",
  radius: float = 16,
  low_pass: float = 0.5,
  gamma: float = 1.0,
  focal: float = 0.0,
  **network: Unpack[Network],
) -> Mfm:
  """Makes MFM from hyperparameters; the defaults are the paper's for a ViT-B.

  Args:
    mean: of the pixels, from 0 to 1, by which the data are normalized: one number, or
      one a channel. What the encoder sees is cut off at black and white before it is
      normalized; nothing is cut off when None.
    std: likewise.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels; when None 16, or a CNN's stride.
    encoder: of a ViT a size of `maskjax.models.VIT_SIZES`, or `width`, `depth` and
      `heads`, and `positions` and `key_bias` where they are not the paper's; or of a
      CNN, see `maskjax.models.conv_encoder`.
    radius: of the low frequencies, in entries of the spectrum.
    low_pass: probability that the high frequencies of an image are masked, not the low;
      for a CNN the authors take 0.3.
    gamma: exponent of the distance of two frequencies.
    focal: exponent of the weights of hard frequencies; 0 weighs all the same.
    **network: see `maskjax.models.Network`; a CNN has its `initialization` and `dtype`
      alone.

  Raises:
    UserError: sizes that do not divide, or an exponent, a shape, a radius, a mean or a
      std out of range; names it.

  Example:
    >>> system = mfm(image_size=32, mean=0.5, std=0.25, encoder="Ti")
    >>> system.patches.grid
    (2, 2)
  """
  if is_cnn(encoder):
    vision_only = [key for key in network if key not in ("dtype", "initialization")]
    if vision_only:
      raise UserError(f"{vision_only[0]}: expected none, the encoder is no ViT")
    vision: Any = conv_encoder(
      image_size=image_size,
      patch_size=patch_size,
      encoder=encoder,
      initialization=network.get("initialization", "cnn"),
      dtype=network.get("dtype", "float32"),
    )
    patches = patches_of(image_size, vision.patch_size, channels=channels)
    stride = vision.network.stride
    if patches.size != (stride, stride):
      raise UserError(
        f"patch_size={patch_size}: expected {stride}, the stride of the encoder"
      )
  else:
    patches = patches_of(
      image_size, 16 if patch_size is None else patch_size, channels=channels
    )
    shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
    own = {key: shape.pop(key, value) for key, value in VIT_OPTIONS.items()}
    network = {"initialization": "simmim", **network}
    vision = vit_encoder(grid=patches.grid, encoder=shape, **own, **network)
  _check(image_size, radius, low_pass, gamma, focal)
  return Mfm(
    model=LinearDecoder(encoder=vision, size=patches.dim),
    patches=patches,
    radius=radius,
    low_pass=low_pass,
    gamma=gamma,
    focal=focal,
    colors=_colors(mean, std, channels),
  )


def _colors(
  mean: float | Sequence[float] | None,
  std: float | Sequence[float] | None,
  channels: int,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
  """Mean and std of each channel."""
  if mean is None and std is None:
    return None

  def each(name: str, given: float | Sequence[float] | None) -> tuple[float, ...]:
    values = tuple(given) if isinstance(given, Sequence) else (given,) * channels
    if len(values) != channels or any(not isinstance(x, int | float) for x in values):
      raise UserError(
        f"{name}={given}: expected a number, or one for each of channels={channels}"
      )
    return cast(tuple[float, ...], values)

  found = each("mean", mean), each("std", std)
  if min(found[1]) <= 0:
    raise UserError(f"std={std}: expected numbers above 0")
  return found


def _check(
  image_size: int | Sequence[int],
  radius: float,
  low_pass: float,
  gamma: float,
  focal: float,
) -> None:
  half = min(per_side(image_size)) / 2
  if not 0 < radius <= half:
    raise UserError(
      f"radius={radius}: expected more than 0 and at most {half:g}, half of an image"
    )
  if not 0 <= low_pass <= 1:
    raise UserError(f"low_pass={low_pass}: expected a probability, from 0 to 1")
  positive(gamma=gamma)
  if focal < 0:
    raise UserError(f"focal={focal}: expected at least 0")
