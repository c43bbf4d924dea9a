"""What the systems have in common that see rows of tokens."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, words
from maskjax.masking.text_policy import TextMasking, TokenIds
from maskjax.masking.units import scores_of
from maskjax.models.text import TextEncoder, text_encoder
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.tokens import Text, vocabularies

# Of the tokens that a held-out text is evaluated on, whatever training masks.
HELD_OUT_RATIO = 0.15


class TextKeywords(TypedDict, total=False):
  """Hyperparameters that all text systems take as keywords.

  Attributes:
    length: tokens of a row at most; 512 when left out.
    encoder: see `maskjax.models.text.text_encoder`; BERT-base when left out.
    vocabulary: name of one of `maskjax.tokens.vocabularies.KNOWN`, in place of the
      following four. A run reads them off its data where a config leaves them out.
    vocab_size: number of tokens.
    pad_id: the token of padding; 0 when left out.
    mask_id: the token that stands for masked ones; 3 when left out.
    special_ids: the tokens that no text has; 0 to 3 when left out.
    dropout: share of each branch, and of embedded tokens, that training drops at
      random; 0 when left out.
    attention_dropout: share of the attention weights that training drops at random;
      0 when left out.
    dtype: `float32` or `bfloat16`, type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalization.
    initialization: how parameters are drawn at first, a name in
      `maskjax.models.initialization.SCHEMES`; the authors' when left out.
    scan: compile one block and loop over it, see `maskjax.models.BlockOptions`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.BlockOptions`.
  """

  length: int
  encoder: Mapping[str, Any] | str
  vocabulary: str
  vocab_size: int
  pad_id: int
  mask_id: int
  special_ids: Sequence[int]
  dropout: float
  attention_dropout: float
  dtype: str
  mlp_ratio: float
  norm_epsilon: float
  initialization: str
  scan: bool
  remat: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRows:
  """How a batch's rows are read: what patches are for images.

  Attributes:
    length: tokens of a row at most.
    ids: of the vocabulary.
    needs_score: whether rows need a `score`, see `maskjax.data.text`.
    needs_label: whether rows need a `label`, int [B], see `maskjax.data.labeled_text`.
  """

  length: int
  ids: TokenIds
  needs_score: bool = False
  needs_label: bool = False

  def __call__(self, batch: Batch) -> Text:
    """The rows of a batch.

    Raises:
      UserError: they are longer than the model can read.
    """
    found = batch["token"].shape[1]
    if found > self.length:
      raise UserError(
        f"the data has rows of {found} tokens: expected at most "
        f"objective.length={self.length}"
      )
    return Text.of(batch)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many rows."""
    row = jax.ShapeDtypeStruct((batch_size, self.length), jnp.int32)
    score = jax.ShapeDtypeStruct(row.shape, jnp.float32)
    of_rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return {
      **dict.fromkeys(("token", "segment", "position", "word", "characters"), row),
      **({"score": score} if self.needs_score else {}),
      **({"label": of_rows} if self.needs_label else {}),
      "index": of_rows,
    }

  def check_vocabulary(self, vocabulary: Any) -> None:
    """Checks that the data's tokens are those of the model.

    Args:
      vocabulary: a `maskjax.tokens.vocabulary.Vocabulary`.

    Raises:
      UserError: names the difference.
    """
    if len(vocabulary) > self.ids.size:
      raise UserError(
        f"the data's vocabulary has {len(vocabulary)} tokens: expected at most "
        f"objective.vocab_size={self.ids.size}"
      )
    if vocabulary.mask != self.ids.mask:
      raise UserError(
        f"the data's vocabulary masks by token {vocabulary.mask}: expected "
        f"objective.mask_id={self.ids.mask}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTextObjective(abc.ABC):
  """A system that predicts masked tokens; each adds its `loss`.

  Batches are rows of `maskjax.data.text`. Held-out text is masked in the same way for
  all of them, so that their curves can be compared.

  Attributes:
    model: is called with a text and positions, int [B, M], and gives logits of the
      tokens there, float32 [B, M, V]; its method `encode` gives features [B, N, D].
    rows: reads a batch.
    masking: masks tokens.
    counters: shapes of the arrays in `extra`, by name, which are 0 at first.
  """

  model: Any
  rows: TextRows
  masking: TextMasking
  counters: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

  @abc.abstractmethod
  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """See `maskjax.objectives.Objective`."""

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for rows of the batch's length, and counters."""
    text = self.rows(first_example(batch))
    if self.rows.needs_score:
      scores_of(text)  # raises where there is none
    params = self.model.init(key, text, jnp.zeros((1, 1), jnp.int32))["params"]
    extra = {name: jnp.zeros(shape) for name, shape in self.counters.items()}
    return Variables(params, extra or ())

  def mask(self, batch: Batch, step: Step) -> Mask:
    """The masks of a batch's rows in a step."""
    return self.masking(batch, step.key)

  def apply(
    self, variables: Variables, *inputs: Any, rngs: Any = None, **how: Any
  ) -> Any:
    """Runs the model: `inputs` are its call's, `how` keywords of Linen's `apply`."""
    return self.model.apply({"params": variables.params}, *inputs, rngs=rngs, **how)

  def masked_token_loss(
    self, variables: Variables, batch: Batch, step: Step, mask: Mask
  ) -> Loss:
    """The cross-entropy of the tokens of a mask, replaced by `masking`."""
    text = self.masking.replace(batch, mask, step.key)
    rngs = self.rngs(batch, step)
    logits = self.apply(variables, text, mask.masked_ids, rngs=rngs)
    return token_loss(logits, mask.take_masked(batch["token"]), counted(mask, batch))

  def predict(self, variables: Variables, text: Text, mask: Mask) -> Array:
    """Logits of the tokens at `mask.masked_ids`: float32 [B, M, V].

    Args:
      variables: see `Variables`.
      text: rows, with mask tokens where they are masked.
      mask: where that is.
    """
    return self.apply(variables, text, mask.masked_ids)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Predicts 15 % of the tokens, drawn and masked alike for all systems."""
    return held_out_loss(self.predict, self.masking, variables, batch, step)

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features of all tokens, none masked: [B, N, D]."""
    return self.apply(variables, self.rows(batch), method="encode")

  def rngs(self, batch: Batch, step: Step) -> dict[str, Array]:
    """Generators of the model for a training step, see `dropout_rngs`."""
    return dropout_rngs(self.model.encoder, batch, step)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many rows."""
    return self.rows.batch_shapes(batch_size)

  def check_vocabulary(self, vocabulary: Any) -> None:
    """See `TextRows.check_vocabulary`."""
    self.rows.check_vocabulary(vocabulary)


def dropout_rngs(encoder: TextEncoder, batch: Batch, step: Step) -> dict[str, Array]:
  """Generators of a text model for a training step; none where it drops nothing."""
  if not encoder.options.drops_out:
    return {}
  # The first row's key, so that microbatches drop different ones.
  key = keys.named(step.key, "dropout")
  return {"dropout": keys.example_keys(key, batch)[0]}


def counted(mask: Mask, batch: Batch) -> Array:
  """Which of `mask.masked_ids` are masked, in rows that count: bool [B, M]."""
  return mask.is_masked & valid(batch)[:, None]


def held_out_loss(
  predict: Any, masking: TextMasking, variables: Variables, batch: Batch, step: Step
) -> Loss:
  """The loss of 15 % of the tokens, all of which become mask tokens.

  Args:
    predict: from variables, a text and a mask to logits [B, M, V].
    masking: of the system, for its vocabulary.
    variables: see `Variables`.
    batch: the rows.
    step: see `Step`.

  Returns:
    The cross-entropy in nats, with accuracy and bits per character.
  """
  masking = dataclasses.replace(masking, of_words=False)
  mask = masking.draw(
    batch, step.key, ratio=HELD_OUT_RATIO, highest=HELD_OUT_RATIO, sampler=words.tokens
  )
  logits = predict(variables, masking.with_mask_tokens(batch, mask), mask)
  tokens, where = mask.take_masked(batch["token"]), counted(mask, batch)
  metrics = {}
  if "characters" in batch:
    bits = token_cross_entropy(logits, tokens) / math.log(2)
    characters = jnp.where(where, mask.take_masked(batch["characters"]), 0)
    metrics["bits_per_character"] = Mean(
      jnp.where(where, bits, 0).sum(), characters.sum(dtype=jnp.float32)
    )
  loss = token_loss(logits, tokens, where)
  return dataclasses.replace(loss, metrics={**loss.metrics, **metrics})


def token_cross_entropy(logits: Array, tokens: Array) -> Array:
  """Cross-entropy of logits [..., V] with tokens, int [...]: float32 [...], in nats."""
  logits = logits.astype(jnp.float32)
  return optax.softmax_cross_entropy_with_integer_labels(logits, tokens)


def token_loss(logits: Array, tokens: Array, where: Array) -> Loss:
  """The cross-entropy of predicted tokens, and how many are right.

  Args:
    logits: [B, M, V].
    tokens: what they should be, int [B, M].
    where: bool [B, M], which of them count.
  """
  return Loss.of(
    Mean.of(token_cross_entropy(logits, tokens), where),
    accuracy=Mean.of(logits.argmax(axis=-1) == tokens, where),
  )


def text_parts(
  *,
  length: int = 512,
  encoder: Mapping[str, Any] | str = "B",
  needs_score: bool = False,
  needs_label: bool = False,
  initialization: str = "normal",
  **text: Any,
) -> tuple[TextEncoder, TextRows]:
  """Makes an encoder, and how it reads rows.

  Args:
    length: see `TextKeywords`.
    encoder: see `TextKeywords`.
    needs_score: see `TextRows`.
    needs_label: see `TextRows`.
    initialization: see `TextKeywords`.
    **text: the rest of `TextKeywords`.

  Raises:
    UserError: there is no such vocabulary, neither a name nor a size of it, or a token
      that it does not have; or see `text_encoder`.
  """
  text = vocabularies.spelled_out(text)
  if "vocab_size" not in text:
    known = ", ".join(vocabularies.KNOWN)
    raise UserError(
      "vocab_size is missing: expected the number of tokens, or vocabulary, one of: "
      f"{known}"
    )
  size = text.pop("vocab_size")
  pad, mask = text.pop("pad_id", 0), text.pop("mask_id", 3)
  special = tuple(sorted({*text.pop("special_ids", range(4)), pad, mask}))
  for token in special:
    if not 0 <= token < size:
      raise UserError(
        f"pad_id, mask_id or special_ids has {token}: expected tokens below vocab_size="
        f"{size}"
      )
  text["initialization"] = initialization
  return (
    text_encoder(vocab_size=size, length=length, encoder=encoder, **text),
    TextRows(
      length=length,
      ids=TokenIds(size=size, pad=pad, mask=mask, special=special),
      needs_score=needs_score,
      needs_label=needs_label,
    ),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(MaskedTextObjective):
  """Masked language modeling: for systems that change no more than the parts."""

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of the masked tokens."""
    return self.masked_token_loss(variables, batch, step, self.mask(batch, step))
