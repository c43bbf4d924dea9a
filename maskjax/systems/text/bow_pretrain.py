"""Drop your decoder: pre-training with bag-of-word prediction for passage retrieval.

Beside masked language modeling, at a rate of 30 % of whole words, the features of a
document's first token have to predict which words the document has, by the same head:
no decoder, no further parameters. The weight of that task falls along a cosine from 1
to 0.1 (https://arxiv.org/abs/2401.11248). Config: `configs/text/bow_pretrain.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array

from maskjax import schedules
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking.text_policy import text_masking
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  counted,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.targets.bag_of_words import bag_errors, bags, firsts, members

SYSTEM = System(
  name="bow_pretrain",
  family="text",
  paper="arXiv:2401.11248",
  config="configs/text/bow_pretrain.py",
  agrees_with="equations in NumPy",
  differs=(
    "Rows may hold several documents, each with a bag; the paper's hold one.",
    "A document's bag weighs as much as its masked tokens do; the authors weigh all "
    "documents alike.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BowPretrain(MaskedTextObjective):
  """Masked language modeling and bags of words; `bow_pretrain` makes it.

  Attributes:
    documents: how many of a row's documents have a bag.
    last_weight: weight of the bags at the end of the run; it is 1 at first.
  """

  documents: int
  last_weight: float

  def bag_weight(self, step: Step) -> Array:
    """The weight of a bag, relative to that of its document's masked tokens."""
    return schedules.cosine(1.0, self.last_weight, step.progress)

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of masked tokens, and of each document's bag.

    A document's bag counts as often as the document has masked tokens, as it does in
    masked language modeling.
    """
    mask = self.mask(batch, step)
    text, num_masked = self.rows(batch), mask.masked_ids.shape[1]
    # One pass of the head over masked tokens and first ones.
    ids = jnp.concatenate([mask.masked_ids, firsts(text, self.documents)], axis=1)
    seen = self.masking.replace(batch, mask, step.key)
    logits = self.apply(variables, seen, ids, rngs=self.rngs(batch, step))
    tokens = token_loss(
      logits[:, :num_masked], mask.take_masked(batch["token"]), counted(mask, batch)
    )
    vocabulary = self.rows.ids
    ordinary = jnp.zeros(vocabulary.size, bool).at[vocabulary.ordinary].set(True)
    wanted = bags(text, ordinary, documents=self.documents)
    errors = bag_errors(logits[:, num_masked:], wanted)
    # [B, S, N] to [B, S]
    masked = (members(text, self.documents) & mask.masked[:, None]).sum(axis=-1)
    masked = jnp.where(valid(batch)[:, None], masked, 0).astype(jnp.float32)
    bag = Mean((errors * masked).sum(), masked.sum())
    return Loss(
      tokens.sum + self.bag_weight(step) * bag.sum,
      tokens.weight,
      {**tokens.metrics, "tokens": Mean(tokens.sum, tokens.weight), "bag": bag},
    )

  def embed(self, variables: Variables, batch: Batch) -> Array:
    """The features of the token before each row's first document: [B, D]."""
    return self.features(variables, batch)[:, 0]


def bow_pretrain(
  *,
  mask: str | Mapping[str, Any] = "whole_words",
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (0.8, 0.1),
  documents: int = 1,
  last_weight: float = 0.1,
  **text: Unpack[TextKeywords],
) -> BowPretrain:
  """Makes bag-of-word prediction from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    documents: how many documents of a row, the first ones, have a bag. 1 is for rows
      of single documents, the paper's; in packed rows each document has its own first
      token, and so a bag of its own.
    last_weight: weight of the bags at the end of the run; it is 1 at first.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a number of documents, a weight, a share, a token or a shape that cannot
      be; names it.

  Example:
    >>> bow_pretrain(vocab_size=30522, mask_id=103).last_weight
    0.1
  """
  if documents < 1:
    raise UserError(f"objective.documents={documents}: expected at least 1")
  if last_weight < 0:
    raise UserError(f"last_weight={last_weight}: expected at least 0")
  encoder, rows = text_parts(**text)
  return BowPretrain(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
    documents=documents,
    last_weight=last_weight,
  )
