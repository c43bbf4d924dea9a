"""ExLM: the likelihood of a row's masked tokens, summed over all paths of states."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking.text_policy import text_masking
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.text import MaskedTextObjective, TextKeywords, text_parts
from maskjax.systems.text.exlm.alignment import log_likelihood
from maskjax.systems.text.exlm.network import ExpandedLM

# What its encoder is like, https://github.com/zhengkangjie/ExLM.
ENCODER: Mapping[str, Any] = {
  "kind": "roberta",
  "positions": "rotary",
  "rotary_bases": (10_000.0,),
  "types": 0,
  "norm_embedded": False,
  "norm_last": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExLm(MaskedTextObjective):
  """The objective of ExLM; `exlm` makes it from hyperparameters."""

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """How unlikely each row's masked tokens are together, by their number."""
    mask = self.mask(batch, step)
    text = self.masking.with_mask_tokens(batch, mask)
    logits, links, emits = self.apply(
      variables, text, mask.masked_ids, rngs=self.rngs(batch, step), method="paths"
    )
    last = (~text.is_padding).sum(axis=1, keepdims=True) - 1
    ends = jnp.take_along_axis(batch["token"], last, axis=1)
    parts = [batch["token"][:, :1], mask.take_masked(batch["token"]), ends]
    tokens = jnp.concatenate(parts, axis=1)
    # [B, S, V] -> [B, S, E] -> [B, E, S]
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    emissions = jax.vmap(lambda row, tokens: row[:, tokens])(log_p, tokens)
    together = jax.vmap(log_likelihood)(links, emissions.swapaxes(1, 2), emits)
    return Loss.of(Mean.of(-together / emits.sum(axis=1), valid(batch)))


def exlm(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  states: int = 4,
  zero_masks: bool = True,
  **text: Unpack[TextKeywords],
) -> ExLm:
  """Makes ExLM from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked; all become mask tokens.
    states: into how many states each is expanded.
    zero_masks: embed mask tokens as zeros, and scale the others by the share of mask
      tokens, as ESM-2 does; what a state is, its positions alone then distinguish. An
      option of the authors' code (`--token-dropout`) which their command leaves out.
    **text: see `maskjax.objectives.text.TextKeywords`; unless `encoder` has its own,
      positions are rotary, and tokens are normalized before each branch and at last.

  Raises:
    UserError: a number of states, a share, a token or a shape that cannot be, or
      positions that are not rotary; names it.

  Example:
    >>> exlm(vocab_size=50265, mask_id=50264, states=2).model.states
    2
  """
  if states < 1:
    raise UserError(f"states={states}: expected at least 1")
  given = text.get("encoder", "B")
  own = {"size": given} if isinstance(given, str) else given
  text["encoder"] = {**ENCODER, **own}
  encoder, rows = text_parts(**text)
  masking = text_masking(
    rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=(1.0, 0.0)
  )
  if encoder.positions != "rotary":
    raise UserError(
      f"encoder.positions={encoder.positions!r}: expected 'rotary', of two axes"
    )
  if encoder.width // encoder.heads % 4:
    raise UserError(
      f"encoder.width={encoder.width}: expected a multiple of 4 channels for each of "
      f"encoder.heads={encoder.heads}, for rotary positions of two axes"
    )
  return ExLm(
    model=ExpandedLM(
      encoder=encoder, states=states, mask_id=rows.ids.mask, zero_masks=zero_masks
    ),
    rows=rows,
    masking=masking,
  )
