"""BEiT v2: codes that a tokenizer was taught, and a class token that gathers them.

BEiT predicts a code of each masked patch, by an encoder that sees mask tokens in
their places. Here the codes are those of VQ-KD (see `maskjax.systems.vqkd`), and
they are predicted twice: by the last block, and by a shallow head that sees the class
token of the last block, but the patches as an earlier one left them, so that the
class token must know the image (https://arxiv.org/abs/2208.06366). Config:
`configs/image/beit_v2.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.models import CodePredictor, Network, vit_encoder
from maskjax.objectives.codes import (
  CodePrediction,
  accuracy,
  build_parts,
  code_cross_entropy,
)
from maskjax.objectives.objective import Batch, valid
from maskjax.systems.system import System

SYSTEM = System(
  name="beit_v2",
  family="image",
  paper="arXiv:2208.06366",
  config="configs/image/beit_v2.py",
  agrees_with="transformers BeitForMaskedImageModeling",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeitV2(CodePrediction):
  """The objective of BEiT v2; `beit_v2` makes it from hyperparameters."""

  def loss_under(
    self, mask: Mask, params: Any, batch: Batch, codes: Array, rngs: Mapping[str, Array]
  ) -> Loss:
    """Both cross-entropies, added up."""
    logits = self.predict(mask, params, self.patches(batch), rngs)
    errors = sum(code_cross_entropy(one, codes) for one in logits)
    where = valid(batch)[:, None]
    right = {"accuracy": accuracy(logits[0], codes, where)}
    if len(logits) > 1:
      right["aggregated_accuracy"] = accuracy(logits[1], codes, where)
    return Loss.of(Mean.of(cast(Array, errors), where), **right)


def beit_v2(
  *,
  tokenizer: str | Mapping[str, Any],
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  early_layer: int = 9,
  head_depth: int = 2,
  mask: str | Mapping[str, Any] = "blockwise",
  mask_ratio: float = 0.4,
  layer_scale: float = 0.1,
  drop_path: float = 0.1,
  **network: Unpack[Network],
) -> BeitV2:
  """Makes BEiT v2 from hyperparameters.

  Args:
    tokenizer: one of `maskjax.objectives.tokenizers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    early_layer: the block whose patches the shallow head sees; 21 for ViT-L.
    head_depth: blocks of the shallow head; 0 for none, which leaves BEiT.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    layer_scale: what each branch is multiplied by at first; 1e-5 for ViT-L.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    masked_patches="token",
    positions="relative",
    final_norm=False,
    key_bias=False,
    layer_scale=layer_scale,
    drop_path=drop_path,
    **network,
  )
  if head_depth < 0:
    raise UserError(f"head_depth={head_depth}: expected at least 0")
  if head_depth and not 1 <= early_layer < vit.depth:
    raise UserError(
      f"early_layer={early_layer}: expected at least 1 and less than "
      f"encoder.depth={vit.depth}"
    )
  parts = build_parts(
    vit,
    tokenizer=tokenizer,
    mask=mask,
    mask_ratio=mask_ratio,
    patch_size=patch_size,
    channels=channels,
  )
  return BeitV2(
    model=CodePredictor(
      encoder=vit,
      num_codes=parts["tokenizer"].num_codes,
      early_layer=early_layer,
      head_depth=head_depth,
    ),
    **parts,
  )
