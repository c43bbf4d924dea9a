"""Masked language models whose mask tokens enter late: what 3ML and MAE-LM share."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking import Mask
from maskjax.masking.selection import highest_where
from maskjax.masking.text_policy import text_masking
from maskjax.models.text import LateMaskLM
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextRows,
  counted,
  token_loss,
)
from maskjax.tokens import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LateMasking(MaskedTextObjective):
  """Masked language modeling with mask tokens that the encoder does not see.

  Unlike in other systems the shares of `masking.replaced` hold of each row exactly, as
  near as whole tokens allow, since an encoder that drops tokens drops equally many of
  each row. The model is a `maskjax.models.text.LateMaskLM`.
  """

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens."""
    mask = self.mask(batch, step)
    text, late = self.late_tokens(batch, mask, step)
    rngs = self.rngs(batch, step)
    logits = self.apply(variables, text, mask.masked_ids, late, rngs=rngs)
    return token_loss(logits, mask.take_masked(batch["token"]), counted(mask, batch))

  def late_tokens(
    self, batch: Batch, mask: Mask, step: Step
  ) -> tuple[Text, Mask | None]:
    """The rows as the network sees them, and which tokens its encoder does not see.

    Args:
      batch: the rows.
      mask: which of their tokens are masked.
      step: see `Step`.

    Returns:
      Rows with other tokens where they are masked, and a mask of those that are mask
      tokens; None where all masked ones are.
    """
    to_mask, at_random = self.masking.replaced
    if to_mask == 1:
      return self.masking.with_mask_tokens(batch, mask), None
    text, ids = self.rows(batch), self.rows.ids
    ordinary = jnp.asarray(ids.ordinary)

    def replace(key: Array, masked: Array, tokens: Array) -> tuple[Array, Array]:
      of_mask, of_kind, of_token = jax.random.split(key, 3)
      count = jnp.round(to_mask * masked.sum()).astype(jnp.int32)
      late = highest_where(jax.random.uniform(of_mask, tokens.shape), masked, count)
      drawn = jax.random.choice(of_token, ordinary, tokens.shape)
      is_random = jax.random.uniform(of_kind, tokens.shape) < at_random / (1 - to_mask)
      other = jnp.where(masked & is_random, drawn, tokens)
      return jnp.where(late, ids.mask, other), late

    row_keys = keys.example_keys(keys.named(step.key, "replace"), batch)
    tokens, late = jax.vmap(replace)(row_keys, mask.masked, text.token)
    most = max(1, round(to_mask * mask.masked_ids.shape[1]))
    return text.with_tokens(tokens), Mask.at_most(
      late, num_masked=most, spare=text.is_padding
    )


def late_masking(
  model: LateMaskLM,
  rows: TextRows,
  *,
  mask: Any,
  mask_ratio: float,
  replaced: Sequence[float],
) -> LateMasking:
  """Makes a system whose mask tokens enter late.

  Args:
    model: the network.
    rows: reads a batch.
    mask: see `maskjax.masking.text_policy.text_masking`.
    mask_ratio: share of the tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.

  Raises:
    UserError: no further blocks, or no mask tokens to enter them.
  """
  if model.depth < 1:
    raise UserError(f"decoder_depth={model.depth}: expected at least 1")
  if len(replaced) != 2 or not replaced[0] > 0:
    raise UserError(
      f"replaced={tuple(replaced)}: expected a share of mask tokens above 0, since "
      "these are what enters late"
    )
  masking = text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced)
  return LateMasking(model=model, rows=rows, masking=masking)
