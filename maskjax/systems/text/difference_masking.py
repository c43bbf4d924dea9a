"""Difference-Masking: choosing what to mask in continued pretraining.

Continues training on the texts of a domain, and masks what makes these differ from
what the model was trained on before: anchors are words that the domain has and the
other corpus has not, and the more similar a word is to its nearest anchor, the more
often it is masked (https://arxiv.org/abs/2305.14577, section 3). The similarity is
`anchor_similarity` of `maskjax.data.statistics`. Config:
`configs/text/difference_masking.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.masking.selection import highest_where
from maskjax.masking.text_policy import text_masking
from maskjax.masking.units import number_words, scores_of
from maskjax.models.text import MaskedLM
from maskjax.objectives.text import MaskedLanguageModel, TextKeywords, text_parts
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="difference_masking",
  family="text",
  paper="arXiv:2305.14577",
  config="configs/text/difference_masking.py",
  agrees_with="equations in NumPy",
)


def by_similarity(key: Array, text: Text, count: Array) -> Array:
  """Masks tokens with probabilities by the rank of their word (Difference-Masking).

  Tokens are drawn one after the other, without replacement. The weight of a token is
  the rank of its word's score among the words of the row: 1 for the lowest, 2 for the
  next, and so on (https://arxiv.org/abs/2305.14577, section 3.3, as its authors' code
  draws).

  Args:
    key: the example's key.
    text: one row, its scores `anchor_similarity` of `maskjax.data.statistics`.
    count: how many tokens to mask.

  Returns:
    bool [N].

  Raises:
    UserError: the rows have no scores.
  """
  units = number_words(text)
  of_unit = (
    jnp.full(units.shape, -jnp.inf)
    .at[units]
    .max(jnp.where(text.is_word, scores_of(text), -jnp.inf))
  )
  rank = jnp.argsort(jnp.argsort(of_unit)) - (of_unit == -jnp.inf).sum()
  weights = jnp.maximum(1 + rank, 1)
  # Log weights plus Gumbel noise: see `maskjax.masking.weighted`.
  noise = jax.random.gumbel(key, units.shape)
  return highest_where(jnp.log(weights[units]) + noise, text.is_word, count)


def difference_masking(
  *,
  mask: str
  | Mapping[str, Any] = "maskjax.systems.text.difference_masking:by_similarity",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes Difference-Masking from hyperparameters.

  Args:
    mask: see `maskjax.systems.bert`.
    mask_ratio: see `maskjax.systems.bert`.
    replaced: see `maskjax.systems.bert`.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  encoder, rows = text_parts(needs_score=True, **text)
  return MaskedLanguageModel(
    model=MaskedLM(encoder=encoder),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
  )
