"""BEiT v2: codes that a tokenizer learned, and a class token that gathers them.

BEiT predicts a code of each masked patch, by an encoder that has mask tokens in place
of masked patches. Here the codes are those of VQ-KD (see `maskjax.systems.vqkd`), and
they are predicted twice: from the last block, and by a shallow head from the class
token of the last block and the patches of an earlier one, so that the class token has
to know the image (https://arxiv.org/abs/2208.06366). Config:
`configs/image/beit_v2.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, masking_of
from maskjax.models import Network, VisionEncoder, blocks_like, norm_like, vit_encoder
from maskjax.models.transformer import dense_like
from maskjax.objectives import tokenizers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.tokenizers import (
  Tokenizer,
  code_accuracy,
  code_cross_entropy,
)
from maskjax.systems.system import System
from maskjax.tokens import patches_of

SYSTEM = System(
  name="beit_v2",
  family="image",
  paper="arXiv:2208.06366",
  config="configs/image/beit_v2.py",
  agrees_with="transformers BeitForMaskedImageModeling",
  differs=(
    "Codes are computed from the normalized crop that the model sees, whose pixels are "
    "scaled back; the authors resize the crop once more for the tokenizer, to the same "
    "size.",
  ),
)


class CodePredictor(nn.Module):
  """An encoder with mask tokens, and patch aggregation.

  Further blocks see the class token of the last block, but the patch tokens of an
  earlier one, so that they can predict codes only by what the class token knows of the
  image (https://arxiv.org/abs/2208.06366, section 2.3).

  Attributes:
    encoder: with `masked_patches="token"`, `positions="relative"`, `final_norm=False`.
    num_codes: length K of a prediction.
    early_layer: how many of its blocks patches go through before aggregation.
    head_depth: blocks of the aggregation; 0 for none, as in BEiT.
  """

  encoder: VisionEncoder
  num_codes: int
  early_layer: int
  head_depth: int

  def setup(self) -> None:
    """Makes what the two predictions share, and the blocks of the second."""
    encoder = self.encoder
    self.norm = norm_like(encoder)
    self.head = dense_like(encoder, self.num_codes, "head")
    # Their dropped paths go on from those of the blocks that the patches went through.
    last = self.early_layer + self.head_depth
    rates = np.linspace(0, encoder.options.drop_path, max(encoder.depth, last))
    rates = rates[self.early_layer : last].tolist()
    self.aggregator = blocks_like(
      encoder,
      self.head_depth,
      before=self.early_layer,
      drop_paths=tuple(rates),
    )

  def __call__(self, patches: Array, mask: Mask) -> list[Array]:
    """Logits of masked patches [B, N, P], and those by aggregation: [B, M, K] each."""
    outputs = self.encoder.every_block(patches, mask)
    logits = [self.predict(outputs[-1], mask)]
    if self.head_depth:
      early = self.encoder.patch_tokens(outputs[self.early_layer - 1])
      logits.append(self.predict(self.aggregate(outputs[-1], early), mask))
    return logits

  def aggregate(self, last: Array, early: Array) -> Array:
    """Runs the further blocks.

    Args:
      last: tokens after the last block, [B, 1 + N, D], of which the class token is
        taken.
      early: patch tokens after an earlier one, [B, N, D].

    Returns:
      [B, 1 + N, D].
    """
    tokens = jnp.concatenate([last[:, :1], early], axis=1)
    return cast(Array, self.aggregator(tokens, bias=self.encoder.relative())[-1])

  def predict(self, tokens: Array, mask: Mask) -> Array:
    """Logits of masked patches: [B, 1 + N, D] to float32 [B, M, K]."""
    tokens = self.norm(mask.take_masked(self.encoder.patch_tokens(tokens)))
    return cast(Array, self.head(tokens)).astype(jnp.float32)

  def encode(self, patches: Array) -> Array:
    """Encodes whole images: [B, N, P] to [B, 1 + N, D]."""
    return cast(Array, self.norm(self.encoder(patches)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeitV2(PatchObjective):
  """The objective of BEiT v2; `beit_v2` makes it from hyperparameters.

  Attributes:
    tokenizer: gives the codes that are predicted.
  """

  tokenizer: Tokenizer

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The tokenizer's run."""
    return self.tokenizer.pretrained

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the tokenizer."""
    params = self.init_params(key, batch)
    return Variables(params, {"tokenizer": self.tokenizer.init(key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Both cross-entropies of masked patches' codes, added up, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Both cross-entropies of masked patches' codes, by the whole network."""
    return self._loss(variables, batch, step, {})

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    mask, state = self.mask(batch, step), variables.extra["tokenizer"]
    codes = mask.take_masked(self.tokenizer.codes(state, batch))
    logits = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    errors = sum(code_cross_entropy(one, codes) for one in logits)
    where = valid(batch)[:, None]
    accuracies = {"accuracy": code_accuracy(logits[0], codes, where)}
    if len(logits) > 1:
      accuracies["aggregated_accuracy"] = code_accuracy(logits[1], codes, where)
    return Loss.of(Mean.of(cast(Array, errors), where), **accuracies)


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
    tokenizer: a tokenizer of `maskjax.objectives.tokenizers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    early_layer: the block whose patches the shallow head sees; 21 for ViT-L.
    head_depth: blocks of the shallow head; 0 for none, which leaves BEiT.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    layer_scale: initial factor of each branch; 1e-5 for ViT-L.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it, and
      those of the shallow head go on from the early layer.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a layer, a depth, a ratio or a tokenizer that does not fit; names it.
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "beit_v2", **network}
  vit = vit_encoder(
    grid=patches.grid,
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
  built = tokenizers.build(tokenizer, patches)
  return BeitV2(
    model=CodePredictor(
      encoder=vit,
      num_codes=built.num_codes,
      early_layer=early_layer,
      head_depth=head_depth,
    ),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
    tokenizer=built,
  )
