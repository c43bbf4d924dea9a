"""DrBERT (later BPDec): a stronger decoder in the pre-training of BERT.

The encoder is BERT's. Further blocks after it, for pre-training alone, refine its
features of masked tokens: in the first of them nothing attends to some of the masked
tokens, in the last one everything attends to all, since these grow more accurate with
depth. At random positions the encoder's own features are read in place of the decoder's
(https://arxiv.org/abs/2401.15861). Config: `configs/text/drbert.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking.mask import gather
from maskjax.masking.selection import highest_where
from maskjax.masking.text_policy import text_masking
from maskjax.models.text import TextEncoder, VocabularyHead
from maskjax.models.transformer import blocks_like, norm_like
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  counted,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="drbert",
  family="text",
  paper="arXiv:2401.15861",
  config="configs/text/drbert.py",
  agrees_with="equations in NumPy",
  differs=(
    "The authors have not released code; all is from the paper, and what it leaves "
    "open is BERT's recipe, without next-sentence prediction.",
    "Where masks are filled, masked tokens are unmasked in a fixed order of positions, "
    "and the decoder alone is read.",
  ),
)


# Its multiples, modulo 1, spread evenly and never repeat.
_GOLDEN = 0.6180339887498949


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrBert(MaskedTextObjective):
  """The objective of DrBERT; `drbert` makes it from hyperparameters.

  Attributes:
    unrefined: how likely the encoder's own features are read at a masked position.
  """

  unrefined: float

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens."""
    mask = self.mask(batch, step)
    unrefined = mask.take_masked(noise("unrefined", batch, step)) < self.unrefined
    logits = self.apply(
      variables,
      self.masking.replace(batch, mask, step.key),
      mask.masked_ids,
      noise("unmask", batch, step),
      unrefined,
      rngs=self.rngs(batch, step),
    )
    return token_loss(logits, mask.take_masked(batch["token"]), counted(mask, batch))


def noise(name: str, batch: Batch, step: Step) -> Array:
  """Uniform numbers for a purpose, by the examples' own keys: float32 [B, N]."""
  row_keys = keys.example_keys(keys.named(step.key, name), batch)
  length = batch["token"].shape[1]
  return jax.vmap(lambda key: jax.random.uniform(key, (length,)))(row_keys)


class RefinedLM(nn.Module):
  """An encoder, and further blocks in which masked tokens are unmasked step by step.

  Attributes:
    encoder: of the text.
    unmasked: of each further block, which share of the masked tokens others may attend
      to; those of a block are among those of the next one, where the share grows.
  """

  encoder: TextEncoder
  unmasked: tuple[float, ...]

  def setup(self) -> None:
    """Makes the further blocks and the head."""
    self.decoder = blocks_like(self.encoder, len(self.unmasked))
    if not self.encoder.options.norm_last:
      self.norm = norm_like(self.encoder)
    self.head = VocabularyHead(encoder=self.encoder)

  def __call__(
    self,
    text: Text,
    ids: Array,
    order: Array | None = None,
    unrefined: Array | None = None,
  ) -> Array:
    """Logits at the positions `ids` alone.

    Args:
      text: [B, N], with mask tokens where tokens are masked.
      ids: int [B, M], where that is.
      order: float [B, N]; masked tokens with the highest numbers are unmasked first.
        When None, an order of positions that spreads over the row.
      unrefined: bool [B, M], where the encoder's features are read in place of those
        after the further blocks; nowhere when None.

    Returns:
      float32 [B, M, V].
    """
    features = self.encoder(text)
    if order is None:
      positions = jnp.arange(text.token.shape[1])
      order = jnp.broadcast_to((positions * _GOLDEN) % 1.0, text.token.shape)
    inputs = self.encoder.block_inputs(text, windowed=False)
    unseen = [self.not_seen(text, ids, order, share) for share in self.unmasked]
    inputs["bias"] = [
      jnp.where(masked[:, None, None], -jnp.inf, inputs["bias"]) for masked in unseen
    ]
    x = self.decoder(features, **inputs)[-1]
    x = gather(x if self.encoder.options.norm_last else self.norm(x), ids)
    if unrefined is not None:
      x = jnp.where(unrefined[..., None], gather(features, ids), x)
    return self.head(x)

  def not_seen(self, text: Text, ids: Array, order: Array, share: float) -> Array:
    """Which masked tokens no other attends to in a block of this share: bool [B, N]."""

    def of_row(ids: Array, padding: Array, order: Array) -> Array:
      # Padding attends to padding alone, and has to attend to something.
      masked = jnp.zeros(padding.shape, bool).at[ids].set(True) & ~padding
      count = jnp.round(share * masked.sum()).astype(jnp.int32)
      return masked & ~highest_where(order, masked, count)

    return jax.vmap(of_row)(ids, text.is_padding, order)

  def encode(self, text: Text) -> Array:
    """Features of all tokens, without the further blocks: [B, N, D]."""
    return self.encoder(text)


def drbert(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  unmasked: Sequence[float] = (0.5, 1.0),
  unrefined: float = 0.5,
  **text: Unpack[TextKeywords],
) -> DrBert:
  """Makes DrBERT from hyperparameters.

  The paper's simpler designs: `unmasked=(1.0, 1.0)` is a decoder of two ordinary
  blocks, and `unrefined=0.0` reads it alone.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    unmasked: of each of the decoder's blocks, which share of the masked tokens is
      attended to, drawn at random in training; as many blocks as there are numbers.
    unrefined: how likely, in training, the encoder's own features are read at a masked
      position in place of the decoder's.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  shares = tuple(unmasked)
  if not shares or not all(0 <= share <= 1 for share in shares):
    raise UserError(
      f"unmasked={shares}: expected a share from 0 to 1 for each block of the decoder"
    )
  if not 0 <= unrefined < 1:
    raise UserError(f"unrefined={unrefined}: expected at least 0 and less than 1")
  encoder, rows = text_parts(**text)
  return DrBert(
    model=RefinedLM(encoder=encoder, unmasked=shares),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
    unrefined=unrefined,
  )
