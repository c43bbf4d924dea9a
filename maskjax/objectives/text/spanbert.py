"""SpanBERT: improving pre-training by representing and predicting spans.

Hides runs of whole words, all tokens of a run in the same way, and tells each of their
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
  filled_in,
  text_parts,
  token_errors,
)
from maskjax.systems import System

SYSTEM = System(
  name="spanbert",
  family="text",
  paper="arXiv:1907.10529",
  config="configs/text/spanbert.py",
  agrees_with="equations in torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanBert(TextObjective):
  """The game of SpanBERT; `spanbert` makes it from hyperparameters."""

  def together(self, mask: Mask) -> Array:
    """Tokens of one run are replaced in the same way."""
    return first_of_run(mask.hidden)

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The sum of both cross-entropies of the hidden tokens."""
    del extra
    mask = self.mask(batch, key)
    first, last = first_of_run(mask.hidden), last_of_run(mask.hidden)
    # What is no hidden token has no run; its logits do not count.
    first, last = mask.masked(first), mask.masked(last)
    left = jnp.maximum(first - 1, 0)
    right = jnp.minimum(last + 1, mask.hidden.shape[1] - 1)
    logits, told = self.model.apply(
      {"params": params},
      self.seen(batch, mask, key),
      mask.hidden_ids,
      left,
      right,
      mask.hidden_ids - first,
      method="both",
      rngs=self.rngs(batch, key),
    )
    tokens = mask.masked(batch["token"])
    where = mask.is_hidden & valid(batch)[:, None]
    own = filled_in(logits, tokens, where)
    boundary = Mean.of(token_errors(told, tokens), where)
    return Loss(
      own.sum + boundary.sum,
      own.weight,
      {**own.metrics, "masked": Mean(own.sum, own.weight), "boundary": boundary},
    )


def first_of_run(hidden: Array) -> Array:
  """Where the run of each hidden token begins: bool [B, N] to int32 [B, N].

  Runs that touch are one. A visible token is its own run.

  Example:
    >>> first_of_run(jnp.array([[False, True, True, False, True]])).tolist()
    [[0, 1, 1, 3, 4]]
  """
  places = jnp.arange(hidden.shape[1], dtype=jnp.int32)
  before = jnp.pad(hidden[:, :-1], ((0, 0), (1, 0)))
  begins = jnp.where(hidden & before, -1, places)
  return jax.lax.cummax(begins, axis=1)


def last_of_run(hidden: Array) -> Array:
  """Where the run of each hidden token ends: bool [B, N] to int32 [B, N].

  Example:
    >>> last_of_run(jnp.array([[False, True, True, False, True]])).tolist()
    [[0, 2, 2, 3, 4]]
  """
  return hidden.shape[1] - 1 - first_of_run(hidden[:, ::-1])[:, ::-1]


def spanbert(
  *,
  vocab_size: int,
  mask: str | Mapping[str, Any] = "spans",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  place_width: int = 200,
  **text: Unpack[TextKeywords],
) -> SpanBert:
  """Makes SpanBERT from hyperparameters.

  Give it rows of one document: `pack=False` in the data.

  Args:
    vocab_size: number of tokens.
    mask: see `maskjax.objectives.mlm`; `p` and `longest` of `spans` are 0.2 and 10.
    mask_ratio: see `maskjax.objectives.mlm`.
    replaced: shares of the runs whose tokens become mask tokens, and random ones.
    place_width: channels that stand for the place of a token in its run.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if place_width < 1:
    raise UserError(f"place_width={place_width}: expected at least 1")
  encoder, fields = text_parts(
    vocab_size=vocab_size,
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  # No run is longer than what a row hides.
  model = SpanLM(encoder=encoder, places=0, place_width=place_width)
  objective = SpanBert(model=model, **fields)
  places = objective.most_hidden(mask_ratio, encoder.length)
  return dataclasses.replace(objective, model=model.clone(places=places))
