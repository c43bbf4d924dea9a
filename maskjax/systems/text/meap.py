"""MEAP: mask-enhanced autoregressive prediction.

Puts mask tokens in the place of 15 % of what a decoder-only transformer reads, and has
it predict the next token everywhere, as without them: what it attends to thins out, and
it retrieves better what is there (https://arxiv.org/abs/2502.07490, section 3). A
masked token of held-out text is predicted from the output of its left neighbor, so
from one side alone. Config: `configs/text/meap.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array

from maskjax.losses import Loss
from maskjax.models.text import CausalLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System

SYSTEM = System(
  name="meap",
  family="text",
  paper="arXiv:2502.07490",
  config="configs/text/meap.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskEnhancedPrediction(TextObjective):
  """The objective of MEAP; `meap` makes it from hyperparameters."""

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of each document's tokens but the first."""
    del extra
    text = self.text(batch)
    seen = self.with_mask_tokens(batch, self.mask(batch, key))
    rows, length = text.token.shape
    ids = jnp.broadcast_to(jnp.arange(1, length), (rows, length - 1))
    rngs = self.rngs(batch, key)
    logits = self.model.apply({"params": params}, seen, ids, rngs=rngs)
    follows = (text.position[:, 1:] > 0) & valid(batch)[:, None]
    return token_loss(logits, text.token[:, 1:], follows)


def meap(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  **text: Unpack[TextKeywords],
) -> MaskEnhancedPrediction:
  """Makes MEAP from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that are read as mask tokens.
    **text: see `maskjax.objectives.texts.TextKeywords`; the paper's networks are of
      the `encoder`'s kind `llama`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  text.setdefault("encoder", {"kind": "llama", "size": "B"})
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=(1.0, 0.0),
    **text,
  )
  return MaskEnhancedPrediction(model=CausalLM(encoder=encoder), **fields)
