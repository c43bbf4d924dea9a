"""3ML: mask more and mask later.

Masks half of the tokens, and leaves those that became mask tokens out of the encoder,
which is so shorter by them: they enter two further blocks, where they gather from the
others what stood there. Tokens that are random or stay, of those that are masked, stay
in the encoder (https://arxiv.org/abs/2211.04898, figure 2, self-attention alone).
Config: `configs/text/three_ml.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking import Mask, words
from maskjax.models.text import LateMaskLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="three_ml",
  family="text",
  paper="arXiv:2211.04898",
  config="configs/text/three_ml.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LateMasking(TextObjective):
  """The objectives of 3ML and MAE-LM; `three_ml` and `mae_lm` make them.

  Unlike in other systems `replaced` holds of each row exactly, as near as whole tokens
  allow, since an encoder that drops tokens drops equally many of each row.
  """

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of the masked tokens."""
    del extra
    mask = self.mask(batch, key)
    text, late = self.seen_late(batch, mask, key)
    logits = self.model.apply(
      {"params": params}, text, mask.masked_ids, late, rngs=self.rngs(batch, key)
    )
    where = mask.is_masked & valid(batch)[:, None]
    return token_loss(logits, mask.take_masked(batch["token"]), where)

  def seen_late(self, batch: Batch, mask: Mask, key: Array) -> tuple[Text, Mask | None]:
    """The rows as the network sees them, and which tokens its encoder does not see.

    Args:
      batch: the rows.
      mask: which of their tokens are hidden.
      key: the step's.

    Returns:
      Rows with other tokens where they are masked, and a mask of those that are mask
      tokens; None where all masked ones are.
    """
    to_mask, at_random = self.replaced
    if to_mask == 1:
      return self.with_mask_tokens(batch, mask), None
    text = self.text(batch)
    ordinary = jnp.asarray(self.tokens.ordinary)

    def replace(key: Array, masked: Array, tokens: Array) -> tuple[Array, Array]:
      of_mask, of_kind, of_token = jax.random.split(key, 3)
      count = jnp.round(to_mask * masked.sum()).astype(jnp.int32)
      leaves = words.most(jax.random.uniform(of_mask, tokens.shape), masked, count)
      drawn = jax.random.choice(of_token, ordinary, tokens.shape)
      is_random = jax.random.uniform(of_kind, tokens.shape) < at_random / (1 - to_mask)
      other = jnp.where(masked & is_random, drawn, tokens)
      return jnp.where(leaves, self.tokens.mask, other), leaves

    row_keys = keys.example_keys(keys.named(key, "replace"), batch)
    tokens, leaves = jax.vmap(replace)(row_keys, mask.masked, text.token)
    most = max(1, round(to_mask * mask.masked_ids.shape[1]))
    late = Mask.at_most(leaves, num_masked=most, spare=text.is_padding)
    return text.saying(tokens), late


def late_masking(
  *,
  mask: str | Mapping[str, Any],
  mask_ratio: float,
  replaced: Sequence[float],
  decoder_depth: int,
  model: Mapping[str, Any],
  **text: Any,
) -> LateMasking:
  """Makes a system whose mask tokens enter late; see `three_ml` for the rest.

  Args:
    mask: name of a sampler.
    mask_ratio: share of the tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    decoder_depth: number of further blocks.
    model: further fields of `LateMaskLM`.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if decoder_depth < 1:
    raise UserError(f"decoder_depth={decoder_depth}: expected at least 1")
  if len(replaced) != 2 or not replaced[0] > 0:
    raise UserError(
      f"replaced={tuple(replaced)}: expected a share of mask tokens above 0, since "
      "these are what enters late"
    )
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  return LateMasking(
    model=LateMaskLM(encoder=encoder, depth=decoder_depth, **model), **fields
  )


def three_ml(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.5,
  replaced: Sequence[float] = (0.8, 0.1),
  decoder_depth: int = 2,
  **text: Unpack[TextKeywords],
) -> LateMasking:
  """Makes 3ML from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones; the
      latter, and those that stay, are seen by the encoder.
    decoder_depth: number of blocks after the encoder, which mask tokens enter.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  return late_masking(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    decoder_depth=decoder_depth,
    model={},
    **text,
  )
