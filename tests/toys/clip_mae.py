"""A toy after VideoMAE: patches of clips [B, T, H, W, C], tubes of which are masked."""

import dataclasses
import math

import jax.numpy as jnp

from maskjax.losses import squared_error
from maskjax.masking import Masking, random
from maskjax.models import MaskedAutoencoder, decoder_of, vit_encoder
from maskjax.objectives import Variables
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.reconstruction import patch_loss
from maskjax.tokens import patches_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipMae(PatchObjective):
  """Predicts the pixels of masked tubes."""

  def init(self, key, batch):
    return Variables(self.init_params(key, batch))

  def loss(self, variables, batch, step):
    mask, patches = self.mask(batch, step), self.patches(batch)
    predictions = self.apply(variables, patches, mask)
    return patch_loss(squared_error, predictions, patches, mask, batch)


def tubes(key, grid, num_masked):
  """Masks the same patches of all times."""
  times, *plane = grid
  return jnp.tile(random(key, plane, num_masked // times), times)


def clip_mae():
  patches = patches_of((4, 8, 8), (2, 2, 2), channels=1, rank=3, name="clip")
  encoder = vit_encoder(grid=patches.grid, encoder=dict(width=24, depth=1, heads=2))
  shape = dict(width=12, depth=1, heads=2)
  return ClipMae(
    model=MaskedAutoencoder(
      encoder=encoder, decoder=decoder_of(encoder, shape, patch_dim=patches.dim)
    ),
    patches=patches,
    masking=Masking(
      sampler=tubes, grid=patches.grid, num_masked=math.prod(patches.grid) // 4 * 3
    ),
  )
