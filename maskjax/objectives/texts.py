"""What the systems that mask tokens of text have in common."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, words
from maskjax.masking.words import TextSampler
from maskjax.models.text import TextEncoder, text_encoder
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.rows import RowObjective, Tokens
from maskjax.tokens import Text, vocabularies

# Of the tokens that a held-out text is judged by, whatever a system masks in training.
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
    attention_dropout: share of the weights of attention that training drops at random;
      0 when left out.
    dtype: `float32` or `bfloat16`, type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalization.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.
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
  scan: bool
  remat: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextObjective(RowObjective):
  """A system that masks tokens; each adds `loss`.

  Attributes:
    model: is called with a text and places, int [B, M].
    sampler: draws masks.
    mask_ratio: share of a row's tokens, less padding, that is masked.
    replaced: shares of the masked tokens that a mask token stands for, and a random
      one; the rest stays as it is.
  """

  sampler: TextSampler
  mask_ratio: float
  replaced: tuple[float, float]

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for rows of the batch's length."""
    one = {name: rows[:1] for name, rows in batch.items()}
    text = self.text(one)
    if self.reads_score:
      words.scores(text)
    ids = jnp.zeros((1, 1), jnp.int32)
    params = self.model.init(key, text, ids)["params"]
    return Variables(params, self.first_extra())

  def first_extra(self) -> Any:
    """What `extra` holds before the first step; nothing but where a system says so."""
    return ()

  def masks(self, ratio: Array | float, text: Text) -> Array:
    """How many tokens of each row a ratio masks: int32 [B], rounded as BERT does."""
    filled = (~text.is_padding).sum(axis=-1)
    return jnp.maximum(jnp.round(ratio * filled), 1).astype(jnp.int32)

  def max_masked(self, ratio: float, length: int) -> int:
    """How many tokens of a row a ratio masks at most."""
    return max(1, math.ceil(ratio * length - 1e-6))

  def mask(self, batch: Batch, key: Array) -> Mask:
    """The masks of a batch's rows under a step's key."""
    return self.draw(self.sampler, self.mask_ratio, batch, key)

  def draw(
    self,
    sampler: TextSampler,
    ratio: Array | float,
    batch: Batch,
    key: Array,
    *,
    highest: float | None = None,
  ) -> Mask:
    """Draws one mask a row.

    Args:
      sampler: see `maskjax.masking.words`.
      ratio: share of the tokens that is masked.
      batch: the rows.
      key: the step's.
      highest: what `ratio` is at most, where it is an array.
    """
    text = self.text(batch)
    most = float(ratio) if highest is None else highest  # type: ignore[arg-type]
    num_masked = self.max_masked(most, text.token.shape[1])
    row_keys = keys.example_keys(keys.named(key, "mask"), batch)
    count = jnp.minimum(self.masks(ratio, text), num_masked)
    masked = jax.vmap(sampler)(row_keys, text, count)
    return Mask.at_most(masked, num_masked=num_masked, spare=text.is_padding)

  def seen(self, batch: Batch, mask: Mask, key: Array) -> Text:
    """The rows with other tokens where they are masked, as `replaced` says."""
    text = self.text(batch)
    to_mask, at_random = self.replaced
    ordinary = jnp.asarray(self.tokens.ordinary)

    def replace(key: Array, tokens: Array, together: Array) -> Array:
      of_kind, of_token = jax.random.split(key)
      kind = jax.random.uniform(of_kind, tokens.shape)[together]
      drawn = jax.random.choice(of_token, ordinary, tokens.shape)
      other = jnp.where(kind < to_mask + at_random, drawn, tokens)
      return jnp.where(kind < to_mask, self.tokens.mask, other)

    row_keys = keys.example_keys(keys.named(key, "replace"), batch)
    tokens = jax.vmap(replace)(row_keys, text.token, self.together(mask))
    return text.saying(jnp.where(mask.masked, tokens, text.token))

  def together(self, mask: Mask) -> Array:
    """Which masked tokens are replaced in the same way: those of equal numbers.

    Returns:
      int32 [B, N], from 0 to N - 1; of each token its own but where a system says so.
    """
    places = jnp.arange(mask.masked.shape[-1], dtype=jnp.int32)
    return jnp.broadcast_to(places, mask.masked.shape)

  def with_mask_tokens(self, batch: Batch, mask: Mask) -> Text:
    """The rows with mask tokens wherever they are masked."""
    text = self.text(batch)
    return text.saying(jnp.where(mask.masked, self.tokens.mask, text.token))

  def masked_token_loss(
    self, mask: Mask, params: Any, batch: Batch, key: Array
  ) -> Loss:
    """The cross-entropy of the tokens that a mask masks, replaced as `seen` says."""
    text = self.seen(batch, mask, key)
    logits = self.predict(params, text, mask, self.rngs(batch, key))
    where = mask.is_masked & valid(batch)[:, None]
    return token_loss(logits, mask.take_masked(batch["token"]), where)

  def predict(
    self,
    params: Any,
    text: Text,
    mask: Mask,
    rngs: Mapping[str, Array] | None = None,
  ) -> Array:
    """Logits of the tokens at `mask.masked_ids`: float32 [B, M, V].

    A hook, like `evaluate`, for systems that tell no tokens.

    Args:
      params: see `Variables`.
      text: rows, with mask tokens where they are hidden.
      mask: where that is.
      rngs: generators of the model.
    """
    return self.model.apply({"params": params}, text, mask.masked_ids, rngs=rngs)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Fills in 15 % of the tokens, drawn and masked alike for all systems."""
    del extra
    mask = self.draw(words.tokens, HELD_OUT_RATIO, batch, key)
    logits = self.predict(params, self.with_mask_tokens(batch, mask), mask)
    where = mask.is_masked & valid(batch)[:, None]
    metrics = {}
    if "characters" in batch:
      bits = token_cross_entropy(logits, mask.take_masked(batch["token"])) / math.log(2)
      characters = jnp.where(where, mask.take_masked(batch["characters"]), 0)
      metrics["bits_per_character"] = Mean(
        jnp.where(where, bits, 0).sum(), characters.sum(dtype=jnp.float32)
      )
    judged = token_loss(logits, mask.take_masked(batch["token"]), where)
    return dataclasses.replace(judged, metrics={**judged.metrics, **metrics})


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


def row_parts(
  *,
  length: int = 512,
  encoder: Mapping[str, Any] | str = "B",
  **text: Any,
) -> tuple[TextEncoder, Tokens]:
  """Makes an encoder, and what a system has to know of the vocabulary.

  Args:
    length: see `TextKeywords`.
    encoder: see `TextKeywords`.
    **text: the rest of `TextKeywords`.

  Raises:
    UserError: there is no such vocabulary, neither a name nor a size of it, or a token
      that it does not have.
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
  return (
    text_encoder(vocab_size=size, length=length, encoder=encoder, **text),
    Tokens(size=size, pad=pad, mask=mask, special=special),
  )


def text_parts(
  *,
  mask: str | Mapping[str, Any],
  mask_ratio: float,
  replaced: Sequence[float],
  **text: Any,
) -> tuple[TextEncoder, dict[str, Any]]:
  """Makes an encoder, and the fields of a `TextObjective` but its model.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path.
    mask_ratio: share of the tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    **text: see `row_parts`.

  Raises:
    UserError: no such sampler, or numbers that cannot be.
  """
  if not 0 < mask_ratio < 1:
    raise UserError(
      f"mask_ratio={mask_ratio}: expected a number between 0 and 1, both excluded"
    )
  if len(replaced) != 2 or min(replaced) < 0 or sum(replaced) > 1:
    raise UserError(
      f"replaced={tuple(replaced)}: expected two shares, of mask tokens and of random "
      "ones, that add to at most 1"
    )
  encoder, tokens = row_parts(**text)
  return encoder, {
    "tokens": tokens,
    "sampler": resolve.bind(words, mask),
    "mask_ratio": mask_ratio,
    "replaced": (replaced[0], replaced[1]),
  }
