"""ExLM: mask tokens as several states, which are told apart and depend on each other.

A text with holes may mean many things. So each mask token is expanded into several
states, which have places of their own beside the token's (rotary positions of two
axes), and are tied by a matrix of transitions. Which states say which of the masked
tokens is left open: the loss is the likelihood of them all, summed over all paths
through the states (https://arxiv.org/abs/2501.13397, section 4). Config:
`configs/text/exlm.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.models.text import ExpandedLM
from maskjax.models.text.alignment import log_likelihood
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import TextKeywords, TextObjective, text_parts
from maskjax.systems.system import System

SYSTEM = System(
  name="exlm",
  family="text",
  paper="arXiv:2501.13397",
  config="configs/text/exlm.py",
  agrees_with="equations in NumPy",
)

# What its encoder is like, https://github.com/zhengkangjie/ExLM.
ENCODER: Mapping[str, Any] = {
  "kind": "roberta",
  "positions": "rotary",
  "rotary_bases": (10_000.0,),
  "types": 0,
  "norm_last": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpandedLanguageModel(TextObjective):
  """The objective of ExLM; `exlm` makes it from hyperparameters."""

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """How unlikely each row's masked tokens are together, by their number."""
    del extra
    mask = self.mask(batch, key)
    text = self.with_mask_tokens(batch, mask)
    rngs = self.rngs(batch, key)
    logits, links, says = self.model.apply(
      {"params": params}, text, mask.masked_ids, rngs=rngs, method="paths"
    )
    last = (~text.is_padding).sum(axis=1, keepdims=True) - 1
    ends = jnp.take_along_axis(batch["token"], last, axis=1)
    parts = [batch["token"][:, :1], mask.take_masked(batch["token"]), ends]
    tokens = jnp.concatenate(parts, axis=1)
    # [B, S, V] -> [B, S, E] -> [B, E, S]
    likely = jax.nn.log_softmax(logits.astype(jnp.float32))
    said = jax.vmap(lambda row, tokens: row[:, tokens])(likely, tokens)
    together = jax.vmap(log_likelihood)(links, said.swapaxes(1, 2), says)
    return Loss.of(Mean.of(-together / says.sum(axis=1), valid(batch)))


def exlm(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  states: int = 4,
  **text: Unpack[TextKeywords],
) -> ExpandedLanguageModel:
  """Makes ExLM from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked; all become mask tokens.
    states: into how many states each is expanded.
    **text: see `maskjax.objectives.texts.TextKeywords`; of the encoder, positions are
      rotary and tokens are normalized before each branch unless it says otherwise.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if states < 1:
    raise UserError(f"states={states}: expected at least 1")
  given = text.get("encoder", "B")
  own = {"size": given} if isinstance(given, str) else given
  text["encoder"] = {**ENCODER, **own}
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=(1.0, 0.0),
    **text,
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
  model = ExpandedLM(encoder=encoder, states=states, mask_id=fields["tokens"].mask)
  return ExpandedLanguageModel(model=model, **fields)
