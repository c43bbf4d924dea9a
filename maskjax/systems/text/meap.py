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
from flax import linen as nn
from jax import Array

from maskjax.losses import Loss
from maskjax.masking.mask import gather
from maskjax.masking.text_policy import text_masking
from maskjax.models.text import TextEncoder
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="meap",
  family="text",
  paper="arXiv:2502.07490",
  config="configs/text/meap.py",
  agrees_with="equations in NumPy",
  differs=(
    "Each row is masked in positions of its own, drawn anew in each step; the authors' "
    "code masks all rows of a batch alike, and comes back to the same masks after 51 "
    "steps.",
    "Tokens at the ends of documents are never masked.",
    "A row has 4,096 tokens, the first of which is not predicted; the authors' has one "
    "more, which is not read.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meap(MaskedTextObjective):
  """The objective of MEAP; `meap` makes it from hyperparameters."""

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of each document's tokens but the first."""
    text = self.rows(batch)
    seen = self.masking.with_mask_tokens(batch, self.mask(batch, step))
    rows, length = text.token.shape
    ids = jnp.broadcast_to(jnp.arange(1, length), (rows, length - 1))
    logits = self.apply(variables, seen, ids, rngs=self.rngs(batch, step))
    follows = (text.position[:, 1:] > 0) & valid(batch)[:, None]
    return token_loss(logits, text.token[:, 1:], follows)


class CausalLM(nn.Module):
  """Predicts each token from those before it.

  Attributes:
    encoder: of the text; each token attends to itself and to those before it.
  """

  encoder: TextEncoder

  def setup(self) -> None:
    """Makes the output layer, which is not tied to the token table."""
    shape = (self.encoder.width, self.encoder.vocab_size)
    self.head = self.param("head", self.encoder.options.drawn.tables, shape)

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits of the tokens at the positions `ids`, from what is left of them.

    Args:
      text: [B, N].
      ids: int [B, M]; nothing predicts the first token of a row.

    Returns:
      float32 [B, M, V].
    """
    before = gather(self.encode(text), jnp.maximum(ids - 1, 0))
    dtype = self.encoder.dtype
    return jnp.einsum(
      "...d,dv->...v",
      before.astype(dtype),
      self.head.astype(dtype),
      preferred_element_type=jnp.float32,
    )

  def encode(self, text: Text) -> Array:
    """Features of all tokens, each of itself and those before it: [B, N, D]."""
    encoder = self.encoder
    inputs = encoder.block_inputs(text, causal=True)
    return encoder.finish(encoder.transformer(encoder.embed(text), **inputs)[-1])


def meap(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  **text: Unpack[TextKeywords],
) -> Meap:
  """Makes MEAP from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that are read as mask tokens.
    **text: see `maskjax.objectives.text.TextKeywords`; the paper's networks are of
      the `encoder`'s kind `llama`, with `norm="rms"`, and `key_heads=2` but for the
      smallest.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  text.setdefault("encoder", {"kind": "llama", "size": "B", "norm": "rms"})
  text.setdefault("initialization", "llama")
  encoder, rows = text_parts(**text)
  return Meap(
    model=CausalLM(encoder=encoder),
    rows=rows,
    masking=text_masking(
      rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=(1.0, 0.0)
    ),
  )
