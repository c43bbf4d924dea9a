"""SpanBERT: improving pre-training by representing and predicting spans.

Masks runs of whole words, all tokens of a run in the same way, and tells each of their
tokens twice: by its own code, as BERT does, and by the codes of the two tokens around
the run and its place in it alone, so that these come to stand for the whole run. Rows
hold one document (https://arxiv.org/abs/1907.10529, section 3). Config:
`configs/text/spanbert.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.models.text import SpanLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.systems.system import System

SYSTEM = System(
  name="spanbert",
  family="text",
  paper="arXiv:1907.10529",
  config="configs/text/spanbert.py",
  agrees_with="equations in torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanBert(TextObjective):
  """The objective of SpanBERT; `spanbert` makes it from hyperparameters."""

  def together(self, mask: Mask) -> Array:
    """Tokens of one run are replaced in the same way."""
    return first_of_run(mask.masked)

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The sum of both cross-entropies of the masked tokens."""
    del extra
    mask = self.mask(batch, key)
    first, last = first_of_run(mask.masked), last_of_run(mask.masked)
    # What is no masked token has no run; its logits do not count.
    first, last = mask.take_masked(first), mask.take_masked(last)
    left = jnp.maximum(first - 1, 0)
    right = jnp.minimum(last + 1, mask.masked.shape[1] - 1)
    logits, told = self.model.apply(
      {"params": params},
      self.seen(batch, mask, key),
      mask.masked_ids,
      left,
      right,
      mask.masked_ids - first,
      method="both",
      rngs=self.rngs(batch, key),
    )
    tokens = mask.take_masked(batch["token"])
    where = mask.is_masked & valid(batch)[:, None]
    own = token_loss(logits, tokens, where)
    boundary = Mean.of(token_cross_entropy(told, tokens), where)
    return Loss(
      own.sum + boundary.sum,
      own.weight,
      {**own.metrics, "masked": Mean(own.sum, own.weight), "boundary": boundary},
    )


def first_of_run(masked: Array) -> Array:
  """Where the run of each masked token begins: bool [B, N] to int32 [B, N].

  Runs that touch are one. A visible token is its own run.

  Example:
    >>> first_of_run(jnp.array([[False, True, True, False, True]])).tolist()
    [[0, 1, 1, 3, 4]]
  """
  places = jnp.arange(masked.shape[1], dtype=jnp.int32)
  before = jnp.pad(masked[:, :-1], ((0, 0), (1, 0)))
  begins = jnp.where(masked & before, -1, places)
  return jax.lax.cummax(begins, axis=1)


def last_of_run(masked: Array) -> Array:
  """Where the run of each masked token ends: bool [B, N] to int32 [B, N].

  Example:
    >>> last_of_run(jnp.array([[False, True, True, False, True]])).tolist()
    [[0, 2, 2, 3, 4]]
  """
  return masked.shape[1] - 1 - first_of_run(masked[:, ::-1])[:, ::-1]


def spanbert(
  *,
  mask: str | Mapping[str, Any] = "spans",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  place_width: int = 200,
  **text: Unpack[TextKeywords],
) -> SpanBert:
  """Makes SpanBERT from hyperparameters.

  Give it rows of one document: `pack=False` in the data.

  Args:
    mask: see `maskjax.systems.bert`; `p` and `longest` of `spans` are 0.2 and 10.
    mask_ratio: see `maskjax.systems.bert`.
    replaced: shares of the runs whose tokens become mask tokens, and random ones.
    place_width: channels that stand for the place of a token in its run.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if place_width < 1:
    raise UserError(f"place_width={place_width}: expected at least 1")
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  # No run is longer than what a row masks.
  model = SpanLM(encoder=encoder, places=0, place_width=place_width)
  objective = SpanBert(model=model, **fields)
  places = objective.max_masked(mask_ratio, encoder.length)
  return dataclasses.replace(objective, model=model.clone(places=places))
