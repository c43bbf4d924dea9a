"""CAE: the context autoencoder.

An encoder of the visible patches alone, as MAE has it, but it shall not do the
decoder's work, nor the decoder its own: a regressor first tells the masked patches'
latents from the visible ones by cross-attention, and is held to those that the
encoder gives when it sees the masked patches; a decoder then tells a tokenizer's codes
from these latents, and sees nothing else (https://arxiv.org/abs/2202.03026). The
paper's tokenizer is DALL-E's; here it is any, see `maskjax.objectives.tokenizers`.
Config: `configs/image/cae.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask
from maskjax.models import ContextAutoencoder, Network, vit_encoder
from maskjax.objectives.codes import (
  CodePrediction,
  accuracy,
  build_parts,
  code_cross_entropy,
)
from maskjax.objectives.objective import Batch, valid
from maskjax.systems.system import System

SYSTEM = System(
  name="cae",
  family="image",
  paper="arXiv:2202.03026",
  config="configs/image/cae.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cae(CodePrediction):
  """The objective of CAE; `cae` makes it from hyperparameters.

  Attributes:
    alignment: weight of the latents' error.
  """

  alignment: float

  def loss_under(
    self, mask: Mask, params: Any, batch: Batch, codes: Array, rngs: Mapping[str, Array]
  ) -> Loss:
    """Cross-entropy of the codes, and the error of the latents that lead to them."""
    logits, regressed, latents = self.predict(mask, params, self.patches(batch), rngs)
    errors = code_cross_entropy(logits, codes)
    misaligned = squared_error(regressed, latents)
    where = valid(batch)[:, None]
    return Loss.of(
      Mean.of(errors + self.alignment * misaligned, where),
      cross_entropy=Mean.of(errors, where),
      alignment=Mean.of(misaligned, where),
      accuracy=accuracy(logits, codes, where),
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
    tokenizer: one of `maskjax.objectives.tokenizers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    regressor_depth: blocks that tell masked latents from visible ones.
    decoder_depth: blocks that tell codes from masked latents.
    alignment: weight of the squared error of the latents.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    layer_scale: what each branch is multiplied by at first; 1e-5 for ViT-L.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if min(regressor_depth, decoder_depth) < 1:
    raise UserError(
      f"regressor_depth={regressor_depth}, decoder_depth={decoder_depth}: expected at "
      "least 1"
    )
  if alignment < 0:
    raise UserError(f"alignment={alignment}: expected at least 0")
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    key_bias=False,
    layer_scale=layer_scale,
    drop_path=drop_path,
    **network,
  )
  parts = build_parts(
    vit,
    tokenizer=tokenizer,
    mask=mask,
    mask_ratio=mask_ratio,
    patch_size=patch_size,
    channels=channels,
  )
  return Cae(
    model=ContextAutoencoder(
      encoder=vit,
      num_codes=parts["tokenizer"].num_codes,
      regressor_depth=regressor_depth,
      decoder_depth=decoder_depth,
    ),
    alignment=alignment,
    **parts,
  )
