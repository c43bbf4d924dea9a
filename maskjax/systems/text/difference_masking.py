"""Difference-Masking: choosing what to mask in continued pretraining.

Continues training on the texts of a domain, and masks what makes these differ from
what the model was trained on before: anchors are words that the domain has and the
other corpus has not, and the more similar a word is to its nearest anchor, the more
often it is masked (https://arxiv.org/abs/2305.14577, section 3). The similarity is
`anchor_similarity` of `maskjax.data.statistics`. Where texts have classes, these are
learned beside. Config: `configs/text/difference_masking.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking.mask import gather
from maskjax.masking.selection import highest_where
from maskjax.masking.text_policy import text_masking
from maskjax.masking.units import number_words, scores_of
from maskjax.models.dropout import dropout
from maskjax.models.text import MaskedLM, TextEncoder, VocabularyHead
from maskjax.models.transformer import dense_like
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  text_parts,
  token_cross_entropy,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="difference_masking",
  family="text",
  paper="arXiv:2305.14577",
  config="configs/text/difference_masking.py",
  agrees_with="equations in NumPy",
  differs=(
    "Both tasks have weights that stay; the authors learn them by how much each task's "
    "gradient helps on held-out texts.",
    "The classes that are learned beside are those of the very texts that are masked, "
    "and a text's class weighs as much as its masked tokens do.",
    "Heads decay as the encoder does, by 0.01; the authors' decay by 0.1.",
    "The share of masked tokens is rounded, and of all tokens; the authors round it "
    "down, and do not count those around a text.",
    "No finetuning of the classifier after this training is part of the setting.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifferenceMasking(MaskedTextObjective):
  """The objective of Difference-Masking; `difference_masking` makes it.

  Attributes:
    class_weight: share of the texts' classes in the loss.
  """

  class_weight: float

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens, and of the texts' classes.

    A text's class counts as often as the text has masked tokens.
    """
    mask = self.mask(batch, step)
    tokens = self.masked_token_loss(variables, batch, step, mask)
    if not self.rows.needs_label:
      return tokens
    if "label" not in batch:
      raise UserError(
        "the rows have no 'label': expected data.train.name='labeled_text', or "
        "objective.num_classes=0"
      )
    rngs = self.rngs(batch, step)
    logits = self.apply(variables, self.rows(batch), rngs=rngs, method="classify")
    errors = token_cross_entropy(logits, batch["label"])
    often = jnp.where(valid(batch), mask.masked.sum(axis=-1), 0)
    classes = Mean((errors * often).sum(), often.sum(dtype=jnp.float32))
    right = logits.argmax(axis=-1) == batch["label"]
    share = self.class_weight
    return Loss(
      (1 - share) * tokens.sum + share * classes.sum,
      tokens.weight,
      {
        **tokens.metrics,
        "tokens": Mean(tokens.sum, tokens.weight),
        "classes": classes,
        "class_accuracy": Mean.of(right, valid(batch)),
      },
    )


class ClassifyingLM(nn.Module):
  """A masked language model that predicts the class of a text as well.

  Attributes:
    encoder: of the text.
    num_classes: number of classes K.
    class_dropout: share of what the classifier's two layers read that is dropped at
      random, where there is a `dropout` generator.
  """

  encoder: TextEncoder
  num_classes: int
  class_dropout: float

  def setup(self) -> None:
    """Makes both heads."""
    self.head = VocabularyHead(encoder=self.encoder)
    self.pool = dense_like(self.encoder, self.encoder.width)
    self.classes = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.02))

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits of tokens, see `MaskedLM`: [B, N] and int [B, M] to float32 [B, M, V]."""
    features = self.encoder(text)
    if self.is_initializing():
      self.classify(text)
    return self.head(gather(features, ids))

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)

  def classify(self, text: Text) -> Array:
    """Logits of classes of rows of one text each: [B, N] to float32 [B, K]."""
    x = dropout(self, self.encoder(text)[:, 0], self.class_dropout)
    x = dropout(self, jnp.tanh(self.pool(x)), self.class_dropout)
    return self.classes(x.astype(jnp.float32))


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
  # Log weights plus Gumbel noise: see https://arxiv.org/abs/1903.06059.
  noise = jax.random.gumbel(key, units.shape)
  return highest_where(jnp.log(weights[units]) + noise, text.is_word, count)


def difference_masking(
  *,
  mask: str
  | Mapping[str, Any] = "maskjax.systems.text.difference_masking:by_similarity",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  num_classes: int = 0,
  class_weight: float = 0.5,
  class_dropout: float = 0.3,
  **text: Unpack[TextKeywords],
) -> DifferenceMasking:
  """Makes Difference-Masking from hyperparameters.

  Args:
    mask: see `maskjax.systems.bert`.
    mask_ratio: see `maskjax.systems.bert`.
    replaced: see `maskjax.systems.bert`.
    num_classes: of the texts, which then need a `label`; 0 learns no classes.
    class_weight: share of the classes in the loss.
    class_dropout: see `ClassifyingLM`.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a share, a token or a shape that cannot be; names it.
  """
  if num_classes < 0:
    raise UserError(f"num_classes={num_classes}: expected at least 0")
  for name, share in (("class_weight", class_weight), ("class_dropout", class_dropout)):
    if not 0 <= share < 1:
      raise UserError(f"{name}={share}: expected at least 0 and less than 1")
  encoder, rows = text_parts(needs_score=True, needs_label=num_classes > 0, **text)
  model: nn.Module = MaskedLM(encoder=encoder)
  if num_classes:
    model = ClassifyingLM(
      encoder=encoder, num_classes=num_classes, class_dropout=class_dropout
    )
  return DifferenceMasking(
    model=model,
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
    class_weight=class_weight,
  )
