"""DrBERT (later BPDec): a stronger decoder in the pre-training of BERT.

The encoder is BERT's. Further blocks after it, for pre-training alone, refine what it
says of masked tokens: in the first of them no token looks at some of the masked ones,
in the last one they look at all, since these grow more accurate with depth. At random
places the encoder's own code is read in place of the decoder's
(https://arxiv.org/abs/2401.15861). Config: `configs/text/drbert.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.models.text import RefinedLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System

SYSTEM = System(
  name="drbert",
  family="text",
  paper="arXiv:2401.15861",
  config="configs/text/drbert.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedLanguageModel(TextObjective):
  """The objective of DrBERT; `drbert` makes it from hyperparameters.

  Attributes:
    unrefined: how likely the encoder's own code is read at a masked place.
  """

  unrefined: float

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of the masked tokens."""
    del extra
    mask = self.mask(batch, key)
    order = self.noise("unmask", batch, key)
    logits = self.model.apply(
      {"params": params},
      self.seen(batch, mask, key),
      mask.masked_ids,
      order,
      mask.take_masked(self.noise("unrefined", batch, key)) < self.unrefined,
      rngs=self.rngs(batch, key),
    )
    where = mask.is_masked & valid(batch)[:, None]
    return token_loss(logits, mask.take_masked(batch["token"]), where)

  def noise(self, name: str, batch: Batch, key: Array) -> Array:
    """Numbers between 0 and 1 for a purpose, that depend on the example: [B, N]."""
    row_keys = keys.example_keys(keys.named(key, name), batch)
    length = batch["token"].shape[1]
    return jax.vmap(lambda key: jax.random.uniform(key, (length,)))(row_keys)


def drbert(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  unmasked: Sequence[float] = (0.5, 1.0),
  unrefined: float = 0.5,
  **text: Unpack[TextKeywords],
) -> RefinedLanguageModel:
  """Makes DrBERT from hyperparameters.

  The paper's simpler designs: `unmasked=(1.0, 1.0)` is a decoder of two ordinary
  blocks, and `unrefined=0.0` reads it alone.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    unmasked: of each of the decoder's blocks, which share of the masked tokens is
      looked at, drawn at random in training; as many blocks as there are numbers.
    unrefined: how likely, in training, the encoder's own code is read at a masked place
      in place of the decoder's.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  shares = tuple(unmasked)
  if not shares or not all(0 <= share <= 1 for share in shares):
    raise UserError(
      f"unmasked={shares}: expected a share from 0 to 1 for each block of the decoder"
    )
  if not 0 <= unrefined < 1:
    raise UserError(f"unrefined={unrefined}: expected at least 0 and less than 1")
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  model = RefinedLM(encoder=encoder, unmasked=shares)
  return RefinedLanguageModel(model=model, unrefined=unrefined, **fields)
