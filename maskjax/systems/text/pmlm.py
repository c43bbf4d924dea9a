"""PMLM: probabilistically masked language models, with a uniform prior (u-PMLM).

Draws for each row anew which share of its tokens is masked, all shares equally likely,
and takes the mean over the masked tokens of each row, or of all of them. Every number
of masked tokens is then equally likely, and the former loss is that of a language model
over all orders: the trained model generates, and scores, texts in any order
(https://arxiv.org/abs/2004.11579, sections 3.2 and 3.3; `maskjax.decoding`). Config:
`configs/text/pmlm.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, did_you_mean
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.masking.text_policy import text_masking
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  counted,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="pmlm",
  family="text",
  paper="arXiv:2004.11579",
  config="configs/text/pmlm.py",
  agrees_with="enumeration of all orders",
  differs=(
    "`mean` is over rows unless another is named, as in the paper's equations; the "
    "authors' code, and so the paper settings, take it over tokens.",
    "Numbers of masked tokens go to that of the row's words; the authors' also count "
    "the special tokens, and are cut to the words'.",
    "Scores of attention are divided by the root of the width of a head with either "
    "kind of positions; the released code does so with relative ones alone.",
    "Relative positions are not cut off at a distance; rows are not longer than that.",
    "No next-sentence prediction.",
  ),
)

MEANS = ("rows", "tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pmlm(MaskedTextObjective):
  """The objective of u-PMLM; `pmlm` makes it from hyperparameters.

  The ratio of its `masking` is the mean of the shares.

  Attributes:
    highest: the largest share of a row's words that is masked.
    mean: one of `MEANS`, see `pmlm`.
  """

  highest: float
  mean: str

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens, a mean as `mean` names it."""
    mask = self.prior_mask(batch, step)
    text = self.masking.replace(batch, mask, step.key)
    rngs = self.rngs(batch, step)
    return self.loss_of_mask(variables, batch, mask, text, rngs)

  def prior_mask(self, batch: Batch, step: Step) -> Mask:
    """Masks from one token to the largest share, each number equally likely."""
    text = self.rows(batch)
    row_keys = keys.example_keys(keys.named(step.key, "prior"), batch)
    share = jax.vmap(jax.random.uniform)(row_keys)
    most = jnp.maximum(jnp.round(self.highest * text.is_word.sum(axis=-1)), 1)
    count = 1 + jnp.floor(share * most)
    length = jnp.maximum((~text.is_padding).sum(axis=-1), 1)
    return self.masking.draw(
      batch, step.key, ratio=count / length, highest=self.highest
    )

  def loss_of_mask(
    self,
    variables: Variables,
    batch: Batch,
    mask: Mask,
    text: Text,
    rngs: Mapping[str, Array] | None = None,
  ) -> Loss:
    """The loss under given masks.

    Args:
      variables: see `Variables`.
      batch: the rows as they are.
      mask: masks at least a token of each row that counts.
      text: the rows as the network sees them.
      rngs: generators of the model.
    """
    logits = self.apply(variables, text, mask.masked_ids, rngs=rngs)
    tokens, where = mask.take_masked(batch["token"]), counted(mask, batch)
    if self.mean == "tokens":
      return token_loss(logits, tokens, where)
    count = where.sum(axis=-1)
    errors = jnp.where(where, token_cross_entropy(logits, tokens), 0).sum(axis=-1)
    return Loss.of(
      Mean.of(errors / jnp.maximum(count, 1), count > 0),
      accuracy=Mean.of(logits.argmax(axis=-1) == tokens, where),
    )


def pmlm(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  highest: float = 1.0,
  replaced: Sequence[float] = (0.8, 0.1),
  mean: str = "rows",
  **text: Unpack[TextKeywords],
) -> Pmlm:
  """Makes u-PMLM from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    highest: the largest share of a row's words that is masked; the smallest is a token.
    replaced: shares of the masked tokens that become mask tokens, and random ones; the
      loss is exactly that over all orders where all become mask tokens.
    mean: of the errors: `rows`, of the mean over each row's masked tokens, as in the
      paper's equations; or `tokens`, of all of a batch, as in the authors' code, where
      rows with many masked tokens weigh more.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  if not 0 < highest <= 1:
    raise UserError(f"highest={highest}: expected a share above 0 and at most 1")
  if mean not in MEANS:
    raise UserError(f"mean={mean!r}: {did_you_mean(str(mean), MEANS)}")
  encoder, rows = text_parts(**text)
  return Pmlm(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(
      rows.ids, mask=mask, mask_ratio=highest / 2, replaced=replaced
    ),
    highest=highest,
    mean=mean,
  )
