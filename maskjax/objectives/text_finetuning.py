"""Supervised finetuning on text: classes of texts, classes of tokens, and spans.

As BERT is finetuned (https://arxiv.org/abs/1810.04805, section 4): one new layer on the
encoder of a masked language model, and all of it trained. Config:
`configs/text/finetune.py`.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError, at_least_one
from maskjax.losses import Loss, Mean
from maskjax.models.text import TextClassifier, TokenClassifier
from maskjax.objectives.abilities import Adoption
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.objectives.text import (
  TextKeywords,
  TextRows,
  dropout_rngs,
  text_parts,
  token_cross_entropy,
)
from maskjax.tokens import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabeledText(abc.ABC):
  """A supervised objective whose labels come with the rows.

  Each adds `label_loss` and `label_shapes`.

  Attributes:
    model: from a text to logits; its method `encode` gives features [B, N, D].
    rows: reads a batch.
  """

  model: Any
  rows: TextRows

  @abc.abstractmethod
  def label_loss(self, logits: Array, batch: Batch) -> Loss:
    """The cross-entropy with the labels, and how many are right."""

  @abc.abstractmethod
  def label_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch's labels by name."""

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for rows of the batch's length."""
    text = self.rows(first_example(batch))
    return Variables(self.model.init(key, text)["params"])

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy with the labels, with dropout."""
    rngs = dropout_rngs(self.model.encoder, batch, step)
    return self.label_loss(self.logits(variables, self.rows(batch), rngs), batch)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The same without dropout."""
    del step
    return self.label_loss(self.logits(variables, self.rows(batch), {}), batch)

  def logits(
    self, variables: Variables, text: Text, rngs: Mapping[str, Array]
  ) -> Array:
    """The model's output for rows: float32 [B, K] or [B, N, K]."""
    return self.model.apply({"params": variables.params}, text, rngs=rngs)

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features of all tokens: [B, N, D]."""
    text, params = self.rows(batch), {"params": variables.params}
    return self.model.apply(params, text, method="encode")

  def adopt(self, pretrained: Mapping[str, Any], like: Mapping[str, Any]) -> Adoption:
    """Takes the encoder alone; see `maskjax.objectives.abilities.Adopts`."""
    del like
    taken = {k: (k, v) for k, v in pretrained.items() if k.startswith("encoder/")}
    return Adoption(taken)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many labeled rows."""
    return {**self.rows.batch_shapes(batch_size), **self.label_shapes(batch_size)}

  def check_vocabulary(self, vocabulary: Any) -> None:
    """See `TextRows.check_vocabulary`."""
    self.rows.check_vocabulary(vocabulary)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassification(LabeledText):
  """Classes of texts; batches hold `label`, int [B], and one text a row."""

  def label_loss(self, logits: Array, batch: Batch) -> Loss:
    """See `LabeledText`."""
    errors = token_cross_entropy(logits, batch["label"])
    right = logits.argmax(axis=-1) == batch["label"]
    where = valid(batch)
    return Loss.of(Mean.of(errors, where), accuracy=Mean.of(right, where))

  def label_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """See `LabeledText`."""
    return {"label": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging(LabeledText):
  """Classes of tokens; batches hold `tag`, int [B, N], -1 for none."""

  def label_loss(self, logits: Array, batch: Batch) -> Loss:
    """See `LabeledText`."""
    tags = batch["tag"]
    where = (tags >= 0) & valid(batch)[:, None]
    errors = token_cross_entropy(logits, jnp.maximum(tags, 0))
    right = logits.argmax(axis=-1) == tags
    return Loss.of(Mean.of(errors, where), accuracy=Mean.of(right, where))

  def label_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """See `LabeledText`."""
    shape = (batch_size, self.model.encoder.length)
    return {"tag": jax.ShapeDtypeStruct(shape, jnp.int32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanExtraction(LabeledText):
  """Where an answer stands; batches hold `start` and `end`, int [B].

  Both are positions in a row, of the answer's first and last token; 0, the token before
  the text, where there is no answer (https://arxiv.org/abs/1806.03822).

  Attributes:
    longest: tokens of an answer at most, in `answers`.
  """

  longest: int

  def label_loss(self, logits: Array, batch: Batch) -> Loss:
    """The mean of both positions' cross-entropy; an answer is right if both are.

    As in BERT, training has to find them among all tokens; only answers are looked for
    in the context alone.
    """
    seen = jnp.where(batch["segment"][..., None] > 0, logits, -jnp.inf)
    begins = token_cross_entropy(seen[..., 0], batch["start"])
    ends = token_cross_entropy(seen[..., 1], batch["end"])
    start, end = self.answers(jnp.where(may_answer(batch)[..., None], logits, -jnp.inf))
    right = (start == batch["start"]) & (end == batch["end"])
    where = valid(batch)
    return Loss.of(Mean.of((begins + ends) / 2, where), exact=Mean.of(right, where))

  def answers(self, logits: Array) -> tuple[Array, Array]:
    """The likeliest spans that do not end before they begin.

    Args:
      logits: [B, N, 2], -inf where no answer may begin or end.

    Returns:
      Positions of the first and the last token: int [B] each.
    """
    length = logits.shape[1]
    scores = logits[:, :, None, 0] + logits[:, None, :, 1]  # [B, start, end]
    tokens = jnp.arange(length)[None] - jnp.arange(length)[:, None]
    scores = jnp.where((tokens >= 0) & (tokens < self.longest), scores, -jnp.inf)
    best = scores.reshape(len(logits), -1).argmax(axis=-1)
    return best // length, best % length

  def label_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """See `LabeledText`."""
    position = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    kind = jax.ShapeDtypeStruct((batch_size, self.model.encoder.length), jnp.int32)
    return {"start": position, "end": position, "kind": kind}


def may_answer(batch: Batch) -> Array:
  """Where an answer may begin or end: in the context, or before all: bool [B, N].

  Args:
    batch: rows of a question and its context, that see each other; `kind` is 1 in the
      context.
  """
  first = jnp.arange(batch["token"].shape[1]) == 0
  return first | ((batch["kind"] == 1) & (batch["word"] >= 0))


def text_classification(
  *, num_classes: int, **text: Unpack[TextKeywords]
) -> TextClassification:
  """Makes a classifier of texts from hyperparameters.

  Args:
    num_classes: number of classes.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a token or a shape that cannot be; names it.
  """
  at_least_one(num_classes=num_classes)
  encoder, rows = text_parts(**text)
  model = TextClassifier(encoder=encoder, num_classes=num_classes)
  return TextClassification(model=model, rows=rows)


def tagging(*, num_classes: int, **text: Unpack[TextKeywords]) -> Tagging:
  """Makes a classifier of tokens from hyperparameters; see `text_classification`."""
  at_least_one(num_classes=num_classes)
  encoder, rows = text_parts(**text)
  model = TokenClassifier(encoder=encoder, num_classes=num_classes)
  return Tagging(model=model, rows=rows)


def span_extraction(
  *, longest: int = 30, **text: Unpack[TextKeywords]
) -> SpanExtraction:
  """Makes what finds answers from hyperparameters.

  Args:
    longest: tokens of an answer at most.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a token or a shape that cannot be; names it.
  """
  at_least_one(longest=longest)
  encoder, rows = text_parts(**text)
  if encoder.types == 1:
    raise UserError(
      "encoder.types=1: expected 0 or 2, since questions and contexts are two kinds"
    )
  model = TokenClassifier(encoder=encoder, num_classes=2, drops=False)
  return SpanExtraction(model=model, longest=longest, rows=rows)
