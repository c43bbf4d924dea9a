"""A toy after A2MIM: mask tokens enter in mid-network, and the loss is of spectra."""

import dataclasses

import jax.numpy as jnp

from maskjax.losses import Loss, Mean
from maskjax.masking import masking_of
from maskjax.models import MaskedEncoder, vit_encoder
from maskjax.objectives import Variables
from maskjax.objectives.objective import valid
from maskjax.objectives.patches import PatchObjective
from maskjax.tokens import patches_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class LateSpectra(PatchObjective):
  """Predicts whole images, which are compared frequency by frequency."""

  def init(self, key, batch):
    return Variables(self.init_params(key, batch))

  def loss(self, variables, batch, step):
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask, True)
    difference = self.patches.join(predictions) - batch["image"]
    spectra = jnp.abs(jnp.fft.fft2(difference, axes=(1, 2)))
    return Loss.of(Mean.of(spectra.mean(axis=(1, 2, 3)), valid(batch)))


def late_spectra(*, mask_token_layer=1, mask_ratio=0.5):
  patches = patches_of(8, 2, channels=1)
  encoder = vit_encoder(
    grid=patches.grid,
    encoder=dict(width=16, depth=2, heads=2),
    masked_patches="token",
    mask_token_layer=mask_token_layer,
  )
  return LateSpectra(
    model=MaskedEncoder(encoder=encoder, size=patches.dim),
    patches=patches,
    masking=masking_of(patches.grid, "random", mask_ratio),
  )
