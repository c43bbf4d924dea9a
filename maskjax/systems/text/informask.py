"""InforMask: unsupervised informative masking for language model pretraining.

Masks the tokens that carry most information on the visible ones, by their pointwise
mutual information. Twice it saves work: of all masks of a row only some are drawn, and
the best of these give once how often each token of the vocabulary should be masked; in
training, each is then masked as often, independently
(https://arxiv.org/abs/2210.11771, section 3). The rates are `informative_rates` of
`maskjax.data.statistics`. Config: `configs/text/informask.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.losses import Loss
from maskjax.masking.selection import highest_where
from maskjax.masking.text_policy import text_masking
from maskjax.masking.units import scores_of
from maskjax.models.text import MaskedLM
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
  name="informask",
  family="text",
  paper="arXiv:2210.11771",
  config="configs/text/informask.py",
  agrees_with="equations in NumPy",
  differs=(
    "The table has BERT's 30,522 tokens, whose tokenizer the authors' code uses, where "
    "theirs has RoBERTa's 50,265.",
    "Padding is not predicted, where all tokens are.",
    "At most `mask_ratio` of a row is masked.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InforMask(MaskedTextObjective):
  """The objective of InforMask; `informask` makes it from hyperparameters.

  Attributes:
    everywhere: predict all tokens, and not masked ones alone.
  """

  everywhere: bool

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens, or of all of them."""
    mask = self.mask(batch, step)
    if not self.everywhere:
      return self.masked_token_loss(variables, batch, step, mask)
    text = self.masking.replace(batch, mask, step.key)
    ids = jnp.broadcast_to(jnp.arange(text.token.shape[1]), text.token.shape)
    logits = self.apply(variables, text, ids, rngs=self.rngs(batch, step))
    where = ~text.is_padding & valid(batch)[:, None]
    return token_loss(logits, batch["token"], where)


def by_rate(key: Array, text: Text, count: Array) -> Array:
  """Masks each token with its score as the probability, as InforMask does.

  https://arxiv.org/abs/2210.11771, section 3.

  Args:
    key: the example's key.
    text: one row, its scores probabilities: `informative_rates` of
      `maskjax.data.statistics`.
    count: how many tokens to mask at most; where more are drawn, a random subset of
      them.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  of_rate, of_rest = jax.random.split(key)
  drawn = jax.random.uniform(of_rate, text.word.shape) < scores_of(text)
  noise = jax.random.uniform(of_rest, text.word.shape)
  return highest_where(noise, drawn & text.is_word, count)


def informask(
  *,
  mask: str | Mapping[str, Any] = "maskjax.systems.text.informask:by_rate",
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (1.0, 0.0),
  everywhere: bool = False,
  **text: Unpack[TextKeywords],
) -> InforMask:
  """Makes InforMask from hyperparameters.

  Args:
    mask: see `maskjax.systems.bert`.
    mask_ratio: share of a row's tokens that is masked at most, for which arrays have
      room; how many are, follows from the rates of the data.
    replaced: see `maskjax.systems.bert`.
    everywhere: predict all tokens, visible ones and those around documents too, as the
      authors' released code does. By default masked ones alone, as masked language
      modeling is defined in the paper, and as all systems here that it is compared
      with.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  encoder, rows = text_parts(needs_score=True, **text)
  return InforMask(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
    everywhere=everywhere,
  )
