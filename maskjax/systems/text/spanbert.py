"""SpanBERT: improving pre-training by representing and predicting spans.

Masks runs of whole words, all tokens of a run in the same way, and predicts each of
their tokens twice: from its own features, as BERT does, and from the features of the
two tokens around the run and its position in it alone, so that these come to represent
the whole run. Runs at either end of a document have no such tokens, and of long runs
the first tokens alone are predicted from them. Rows hold one document
(https://arxiv.org/abs/1907.10529, section 3). Config: `configs/text/spanbert.py`.
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
from maskjax.masking import Mask, gather
from maskjax.masking.text_policy import text_masking
from maskjax.models.gelu import gelu
from maskjax.models.text import TextEncoder, VocabularyHead
from maskjax.models.transformer import LayerNorm, dense_like
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
  name="spanbert",
  family="text",
  paper="arXiv:1907.10529",
  config="configs/text/spanbert.py",
  agrees_with="equations in torch",
  differs=(
    "Boundary errors are divided by all masked tokens, as in the paper; the authors "
    "divide them by those that a boundary predicts.",
    "Random tokens are drawn from the vocabulary, not from the corpus.",
    "A document fills rows to the last token; the authors cut it between sentences.",
    "A batch has a number of rows, of any length; the authors' has up to 4,096 tokens "
    "on each device, in rows of like lengths.",
    "Gradients are those of the loss; the authors' code divides them once more by the "
    "some 600 masked tokens of a device, as if it clipped them to a norm of 600, and "
    "Adam's epsilon were 6e-6.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanBert(MaskedTextObjective):
  """The objective of SpanBERT; `spanbert` makes it from hyperparameters.

  Attributes:
    longest_target: how many tokens of a run are predicted from its boundary.
  """

  longest_target: int

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The sum of both cross-entropies of the masked tokens, by their number."""
    mask = self.mask(batch, step)
    first, last = first_of_run(mask.masked), last_of_run(mask.masked)
    inside = mask.take_masked(has_boundary(self.rows(batch), first, last))
    # Tokens that are not masked have no run; their logits do not count.
    first, last = mask.take_masked(first), mask.take_masked(last)
    left = jnp.maximum(first - 1, 0)
    right = jnp.minimum(last + 1, mask.masked.shape[1] - 1)
    place = mask.masked_ids - first
    predicted = inside & (place < self.longest_target)
    logits, of_boundary = self.apply(
      variables,
      self.replaced_runs(batch, mask, step),
      mask.masked_ids,
      left,
      right,
      jnp.minimum(place, self.longest_target - 1),
      method="both_logits",
      rngs=self.rngs(batch, step),
    )
    tokens, where = mask.take_masked(batch["token"]), counted(mask, batch)
    own = token_loss(logits, tokens, where)
    errors = token_cross_entropy(of_boundary, tokens)
    boundary = Mean.of(errors, where & predicted)
    return Loss(
      own.sum + boundary.sum,
      own.weight,
      {**own.metrics, "masked": Mean(own.sum, own.weight), "boundary": boundary},
    )

  def replaced_runs(self, batch: Batch, mask: Mask, step: Step) -> Text:
    """The rows as the encoder sees them: the tokens of a run are replaced alike."""
    groups = first_of_run(mask.masked)
    return self.masking.replace(batch, mask, step.key, groups=groups)


def has_boundary(text: Text, first: Array, last: Array) -> Array:
  """Whether words of the same document stand on both sides of the run of each token.

  Args:
    text: rows of N tokens.
    first: int32 [B, N], where the run of each token begins.
    last: int32 [B, N], where it ends.

  Returns:
    bool [B, N].
  """
  around = jnp.pad(text.is_word, ((0, 0), (1, 1)))
  left = jnp.take_along_axis(around, first, axis=1)
  right = jnp.take_along_axis(around, last + 2, axis=1)
  return left & right


def first_of_run(masked: Array) -> Array:
  """Where the run of each masked token begins: bool [B, N] to int32 [B, N].

  Runs that touch are one. A visible token is its own run.

  Example:
    >>> first_of_run(jnp.array([[False, True, True, False, True]])).tolist()
    [[0, 1, 1, 3, 4]]
  """
  positions = jnp.arange(masked.shape[1], dtype=jnp.int32)
  before = jnp.pad(masked[:, :-1], ((0, 0), (1, 0)))
  begins = jnp.where(masked & before, -1, positions)
  return jax.lax.cummax(begins, axis=1)


def last_of_run(masked: Array) -> Array:
  """Where the run of each masked token ends: bool [B, N] to int32 [B, N].

  Example:
    >>> last_of_run(jnp.array([[False, True, True, False, True]])).tolist()
    [[0, 2, 2, 3, 4]]
  """
  return masked.shape[1] - 1 - first_of_run(masked[:, ::-1])[:, ::-1]


class BoundaryHead(nn.Module):
  """From the features at both ends of a span, and a position in it, to token logits.

  Two dense layers, each with GELU and a normalization, and the encoder's own table
  (https://arxiv.org/abs/1907.10529, section 3.2).

  Attributes:
    encoder: has the table, and the options of the layers.
    longest: how many tokens of a span are predicted at most, the first ones.
    position_width: channels of the embedding of a position in a span.
  """

  encoder: TextEncoder
  longest: int
  position_width: int = 200

  @nn.compact
  def __call__(self, left: Array, right: Array, position: Array) -> Array:
    """Logits [..., V], float32.

    Args:
      left: [..., D], features of the token before the span.
      right: [..., D], features of the token after it.
      position: int [...], how many tokens of the span stand before the predicted one.
    """
    encoder = self.encoder
    init = encoder.options.drawn.tables
    table = self.param("places", init, (self.longest, self.position_width))
    x = jnp.concatenate([left, right, table[position].astype(left.dtype)], axis=-1)
    for name, width in (
      ("first", encoder.width),
      ("second", encoder.embed_width or encoder.width),
    ):
      x = gelu(dense_like(encoder, width, name=f"{name}_dense")(x))
      x = LayerNorm(
        epsilon=encoder.norm_epsilon, dtype=encoder.dtype, name=f"{name}_norm"
      )(x)
    zeros = nn.initializers.zeros_init()
    bias = self.param("bias", zeros, (encoder.vocab_size,), jnp.float32)
    return encoder.token_logits(x) + bias


class SpanLM(nn.Module):
  """Predicts the tokens at some positions of a text, also from the ends of their span.

  Attributes:
    encoder: of the text.
    longest: see `BoundaryHead`.
    position_width: see `BoundaryHead`.
  """

  encoder: TextEncoder
  longest: int
  position_width: int = 200

  def setup(self) -> None:
    """Makes the heads."""
    self.head = VocabularyHead(encoder=self.encoder)
    self.boundaries = BoundaryHead(
      encoder=self.encoder, longest=self.longest, position_width=self.position_width
    )

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits at the positions `ids` alone, from their own features.

    Args:
      text: [B, N], with mask tokens where tokens are masked.
      ids: int [B, M].

    Returns:
      float32 [B, M, V].
    """
    if self.is_initializing():
      return self.both_logits(text, ids, ids, ids, jnp.zeros_like(ids))[0]
    return self.head(gather(self.encoder(text), ids))

  def both_logits(
    self, text: Text, ids: Array, left: Array, right: Array, position: Array
  ) -> tuple[Array, Array]:
    """Logits at `ids`, from the features there and from the ends of their spans.

    Args:
      text: see `__call__`.
      ids: see `__call__`.
      left: int [B, M], where the token before the span of each stands.
      right: int [B, M], where the one after it stands.
      position: int [B, M], see `BoundaryHead`.

    Returns:
      Two float32 [B, M, V].
    """
    features = self.encoder(text)
    of_boundary = self.boundaries(
      gather(features, left), gather(features, right), position
    )
    return self.head(gather(features, ids)), of_boundary

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    return self.encoder(text)


def spanbert(
  *,
  mask: str | Mapping[str, Any] = "spans",
  mask_ratio: float = 0.15,
  replaced: Sequence[float] = (0.8, 0.1),
  place_width: int = 200,
  longest_target: int = 15,
  **text: Unpack[TextKeywords],
) -> SpanBert:
  """Makes SpanBERT from hyperparameters.

  Give it rows of one document: `pack=False` in the data.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords; `p` and `longest` of `spans` are 0.2 and 10.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the runs whose tokens become mask tokens, and random ones.
    place_width: channels of the embedding of a token's position in its run.
    longest_target: how many tokens of a run are predicted from its boundary, the first
      ones.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a width, a share, a token or a shape that cannot be; names it.

  Example:
    >>> spanbert(vocab_size=30522, length=128).model.longest
    15
  """
  for key, value in (("place_width", place_width), ("longest_target", longest_target)):
    if value < 1:
      raise UserError(f"{key}={value}: expected at least 1")
  encoder, rows = text_parts(**text)
  masking = text_masking(
    rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced, of_words=True
  )
  return SpanBert(
    model=SpanLM(encoder=encoder, longest=longest_target, position_width=place_width),
    rows=rows,
    masking=masking,
    longest_target=longest_target,
  )
