"""Drop your decoder: pre-training with bag-of-word prediction for passage retrieval.

Beside masked language modeling, under a rate of 30 % of whole words, the code of the
token before a document has to tell which words the document has, by the same head: no
decoder, no further parameters. The weight of that task falls along a cosine from 1 to
0.1 (https://arxiv.org/abs/2401.11248). Config: `configs/text/bow_pretrain.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.targets.bag_of_words import bag_errors, bags, firsts, members
from maskjax.tokens import Text

SYSTEM = System(
  name="bow_pretrain",
  family="text",
  paper="arXiv:2401.11248",
  config="configs/text/bow_pretrain.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagOfWords(TextObjective):
  """Masked language modeling and bags of words; `bow_pretrain` makes it.

  `extra` holds the `step`, which says what a bag weighs.

  Attributes:
    documents: how many of a row's documents have a bag.
    last_weight: what a bag weighs in the end.
    num_steps: when that is.
  """

  documents: int
  last_weight: float
  num_steps: int

  def first_extra(self) -> Any:
    """The first step."""
    return {"step": jnp.int32(0)}

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """The next step."""
    del params, step, sums
    return {"step": extra["step"] + 1}

  def weight(self, step: Array) -> Array:
    """What a bag weighs beside the masked tokens of its document."""
    share = jnp.clip(step / self.num_steps, 0, 1)
    return self.last_weight + (1 - self.last_weight) * (1 + jnp.cos(jnp.pi * share)) / 2

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of masked tokens, and of each document's bag."""
    mask = self.mask(batch, key)
    seen = self.seen(batch, mask, key)
    rngs = self.rngs(batch, key)
    return self.tasks_under(mask, params, seen, batch, self.weight(extra["step"]), rngs)

  def tasks_under(
    self,
    mask: Mask,
    params: Any,
    seen: Text,
    batch: Batch,
    weight: Array | float,
    rngs: Mapping[str, Array] | None = None,
  ) -> Loss:
    """The loss under a mask.

    A document counts as often as it has masked tokens, as it does in masked language
    modeling.

    Args:
      mask: which tokens are hidden.
      params: see `Variables`.
      seen: the rows as the network sees them.
      batch: the rows as they are.
      weight: of the bags.
      rngs: generators of the model.
    """
    text, most = self.text(batch), mask.masked_ids.shape[1]
    # One pass of the head over masked tokens and first ones.
    ids = jnp.concatenate([mask.masked_ids, firsts(text, self.documents)], axis=1)
    logits = self.model.apply({"params": params}, seen, ids, rngs=rngs)
    counts = valid(batch)[:, None]
    told = token_loss(
      logits[:, :most], mask.take_masked(batch["token"]), mask.is_masked & counts
    )
    ordinary = jnp.zeros(self.tokens.size, bool).at[self.tokens.ordinary].set(True)
    wanted = bags(text, ordinary, documents=self.documents)
    errors = bag_errors(logits[:, most:], wanted)
    # [B, S, N] to [B, S]
    masked = (members(text, self.documents) & mask.masked[:, None]).sum(axis=-1)
    masked = jnp.where(counts, masked, 0).astype(jnp.float32)
    bag = Mean((errors * masked).sum(), masked.sum())
    return Loss(
      told.sum + weight * bag.sum,
      told.weight,
      {**told.metrics, "tokens": Mean(told.sum, told.weight), "bag": bag},
    )

  def embed(self, params: Any, batch: Batch) -> Array:
    """The code of the token before each row's first document: [B, D]."""
    return self.features(params, batch)[:, 0]


def bow_pretrain(
  *,
  num_steps: int,
  mask: str | Mapping[str, Any] = "whole_words",
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (0.8, 0.1),
  documents: int = 1,
  last_weight: float = 0.1,
  **text: Unpack[TextKeywords],
) -> BagOfWords:
  """Makes bag-of-word prediction from hyperparameters.

  Args:
    num_steps: the run's, over which the weight of bags falls.
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    documents: how many documents of a row, the first ones, have a bag. 1 is for rows
      of single documents, the paper's; of rows that are packed each document has its
      own first token, and so a bag of its own.
    last_weight: what a bag weighs in the end, from 1 on.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  for name, value in (("num_steps", num_steps), ("documents", documents)):
    if value < 1:
      raise UserError(f"objective.{name}={value}: expected at least 1")
  if last_weight < 0:
    raise UserError(f"last_weight={last_weight}: expected at least 0")
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  return BagOfWords(
    model=MaskedLM(encoder=encoder),
    documents=documents,
    last_weight=last_weight,
    num_steps=num_steps,
    **fields,
  )
