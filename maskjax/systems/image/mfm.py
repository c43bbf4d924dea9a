"""MFM: masked frequency modeling for self-supervised visual pre-training.

Masks frequencies of the image in place of patches: all above a radius of the shifted
spectrum, or all below it, by a throw for each image. What is left is an image again,
which the encoder, a ViT or a CNN, sees without any mask token; a linear layer predicts
the whole image, and the loss is the distance of its spectrum from the true one at the
masked frequencies (https://arxiv.org/abs/2206.07706). Config: `configs/image/mfm.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, positive
from maskjax.losses import Loss, Mean, spectral_distance
from maskjax.masking.frequencies import low_or_high
from maskjax.models import Network, conv_encoder, is_cnn, vit_encoder
from maskjax.models.linear import LinearDecoder
from maskjax.objectives import statistics
from maskjax.objectives.images import PatchObjective
from maskjax.objectives.objective import Batch, Variables, collections, valid
from maskjax.systems.system import System
from maskjax.targets.spectrum import draw_spectrum, from_spectrum, spectrum
from maskjax.tokens import patchify, unpatchify
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="mfm",
  family="image",
  paper="arXiv:2206.07706",
  config="configs/image/mfm.py",
  agrees_with="torch.fft, scipy.fft",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mfm(PatchObjective):
  """The objective of MFM; `mfm` makes it from hyperparameters.

  Attributes:
    radius: of the low frequencies, in places of the spectrum.
    low_pass: probability that an image keeps these and loses the others.
    gamma: exponent of the distance of two frequencies.
    focal: exponent of the weights of hard frequencies; 0 weighs all the same.
  """

  radius: float
  low_pass: float
  gamma: float
  focal: float

  reads_extra = True

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and running averages where the encoder has such."""
    return statistics.init(self.model, key, self.patches(batch)[:1])

  def masked(self, batch: Batch, key: Array) -> Array:
    """The frequencies that each image loses under a step's key: bool [B, H, W]."""
    size = batch["image"].shape[1:3]
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    return jax.vmap(
      lambda k: low_or_high(k, size, radius=self.radius, low_pass=self.low_pass)
    )(example_keys)

  def corrupted(self, batch: Batch, key: Array) -> tuple[Array, Array]:
    """Images without their masked frequencies, [B, H, W, C], and these."""
    self.patches(batch)  # refuses images of another shape
    masked = self.masked(batch, key)
    seen = jnp.where(masked[..., None], 0, spectrum(batch["image"]))
    return from_spectrum(seen), masked

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean distance of the masked frequencies."""
    del extra
    images, masked = self.corrupted(batch, key)
    patches = patchify(images, self.patch_size)
    predicted, sums = statistics.train(self.model, params, patches)
    return dataclasses.replace(self.compare(predicted, masked, batch), sums=sums)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The same, normalized by running averages."""
    images, masked = self.corrupted(batch, key)
    predicted = self.predict(Variables(params, extra), images)
    return self.compare(predicted, masked, batch)

  def predict(self, params: Any, images: Array) -> Array:
    """Whole images as patches [B, N, P], from corrupted ones [B, H, W, C]."""
    patches = patchify(images, self.patch_size)
    return cast(Array, self.model.apply(collections(params), patches))

  def compare(self, predicted: Array, masked: Array, batch: Batch) -> Loss:
    """The loss of predictions [B, N, P]."""
    images = unpatchify(predicted, grid=self.grid, patch_size=self.patch_size)
    distances = spectral_distance(
      spectrum(images), spectrum(batch["image"]), gamma=self.gamma, focal=self.focal
    )
    counts = masked & valid(batch)[:, None, None]
    return Loss.of(Mean.of(distances, counts[..., None]))

  def update_extra(
    self, params: Any, extra: Any, step: Array, sums: Mapping[str, Any]
  ) -> Any:
    """Moves the running averages."""
    del params, step
    return statistics.update(extra, sums)

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """Images as they are, as the encoder sees them, and with predicted frequencies.

    And their spectra: as it is, of what is seen, and with the predicted frequencies.
    """
    images, masked = self.corrupted(batch, key)
    predicted = unpatchify(
      self.predict(params, images), grid=self.grid, patch_size=self.patch_size
    )
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


def mfm(
  *,
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
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels; when None 16, or a CNN's stride.
    encoder: of a ViT, see `maskjax.models.vit_encoder`; or of a CNN, see
      `maskjax.models.conv_encoder`.
    radius: of the low frequencies, in places of the spectrum.
    low_pass: probability that an image keeps the low frequencies and loses the others;
      for a CNN the authors take 0.3.
    gamma: exponent of the distance of two frequencies.
    focal: exponent of the weights of hard frequencies; 0 weighs all the same.
    **network: see `maskjax.models.Network`; a CNN has its `dtype` alone.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> mfm(image_size=8, channels=1, patch_size=2, encoder="Ti", radius=2).grid
    (4, 4)
  """
  shape: dict[str, Any] = dict(image_size=image_size, encoder=encoder, **network)
  if is_cnn(encoder):
    vision_only = [key for key in network if key != "dtype"]
    if vision_only:
      raise UserError(f"{vision_only[0]}: expected none, the encoder is no ViT")
    vision: Any = conv_encoder(patch_size=patch_size, **shape)
    patch, stride = vision.patch_size, vision.network.stride
    if patch != (stride, stride):
      raise UserError(
        f"patch_size={patch_size}: expected {stride}, the stride of the encoder"
      )
  else:
    patch = per_side(16 if patch_size is None else patch_size)
    vision = vit_encoder(patch_size=patch, **shape)
  _check(image_size, radius, low_pass, gamma, focal)
  return Mfm(
    model=LinearDecoder(encoder=vision, size=patch[0] * patch[1] * channels),
    patch_size=patch,
    channels=channels,
    radius=radius,
    low_pass=low_pass,
    gamma=gamma,
    focal=focal,
  )


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
