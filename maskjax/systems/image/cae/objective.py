"""The objective of CAE, and the function that makes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import masking_of
from maskjax.models import Network, vit_encoder
from maskjax.objectives import tokenizers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.tokenizers import (
  Tokenizer,
  code_accuracy,
  code_cross_entropy,
)
from maskjax.systems.image.cae.network import ContextAutoencoder
from maskjax.tokens import patches_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cae(PatchObjective):
  """The objective of CAE; `cae` makes it from hyperparameters.

  Attributes:
    tokenizer: gives the codes that are predicted.
    alignment: weight of the latents' error.
  """

  tokenizer: Tokenizer
  alignment: float

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The tokenizer's run."""
    return self.tokenizer.pretrained

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the tokenizer."""
    params = self.init_params(key, batch)
    return Variables(params, {"tokenizer": self.tokenizer.init(key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy of codes and error of latents, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy of codes and error of latents, by the whole network."""
    return self._loss(variables, batch, step, {})

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    mask, state = self.mask(batch, step), variables.extra["tokenizer"]
    codes = mask.take_masked(self.tokenizer.codes(state, batch))
    logits, predicted, latents = self.apply(
      variables, self.patches(batch), mask, rngs=rngs
    )
    errors = code_cross_entropy(logits, codes)
    misaligned = squared_error(predicted, latents)
    where = valid(batch)[:, None]
    return Loss.of(
      Mean.of(errors + self.alignment * misaligned, where),
      cross_entropy=Mean.of(errors, where),
      alignment=Mean.of(misaligned, where),
      accuracy=code_accuracy(logits, codes, where),
    )


def cae(
  *,
  tokenizer: str | Mapping[str, Any],
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  regressor_depth: int = 4,
  decoder_depth: int = 4,
  alignment: float = 2.0,
  mask: str | Mapping[str, Any] = "blockwise",
  mask_ratio: float = 0.5,
  layer_scale: float = 0.1,
  drop_path: float = 0.1,
  **network: Unpack[Network],
) -> Cae:
  """Makes CAE from hyperparameters.

  Args:
    tokenizer: a tokenizer of `maskjax.objectives.tokenizers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    regressor_depth: blocks that predict masked latents from visible ones.
    decoder_depth: blocks that predict codes from masked latents.
    alignment: weight of the squared error of the latents.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    layer_scale: initial factor of each branch; 1e-5 for ViT-L.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a depth, a weight, a ratio or a tokenizer that does not fit; names it.
  """
  if min(regressor_depth, decoder_depth) < 1:
    raise UserError(
      f"regressor_depth={regressor_depth}, decoder_depth={decoder_depth}: expected at "
      "least 1"
    )
  if alignment < 0:
    raise UserError(f"alignment={alignment}: expected at least 0")
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "cae", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    key_bias=False,
    layer_scale=layer_scale,
    drop_path=drop_path,
    **network,
  )
  built = tokenizers.build(tokenizer, patches)
  return Cae(
    model=ContextAutoencoder(
      encoder=vit,
      num_codes=built.num_codes,
      regressor_depth=regressor_depth,
      decoder_depth=decoder_depth,
    ),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
    tokenizer=built,
    alignment=alignment,
  )
