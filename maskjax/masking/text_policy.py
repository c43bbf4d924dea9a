"""How an objective masks the tokens of a batch of text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.masking import words
from maskjax.masking.mask import Mask
from maskjax.masking.words import TextSampler
from maskjax.tokens.text import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenIds:
  """What a system has to know of the vocabulary.

  Attributes:
    size: number of tokens V.
    pad: the token of padding.
    mask: the token that stands for masked ones.
    special: those that no text has; none is drawn at random.
  """

  size: int
  pad: int
  mask: int
  special: tuple[int, ...]

  @property
  def ordinary(self) -> np.ndarray:
    """The tokens that a text may have, ascending."""
    return np.setdiff1d(np.arange(self.size), self.special)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextMasking:
  """Which tokens of a row are masked, and what the encoder sees in their place.

  `text_masking` makes it from hyperparameters.

  Attributes:
    sampler: draws masks, see `maskjax.masking.words`.
    ratio: share of a row's tokens, less padding, that is masked.
    replaced: shares of the masked tokens that a mask token stands for, and a random
      one; the rest stays as it is.
    ids: of the vocabulary.
    of_words: mask the share of the tokens less the special ones around documents,
      rounded up, as SpanBERT does.
  """

  sampler: TextSampler
  ratio: float
  replaced: tuple[float, float]
  ids: TokenIds
  of_words: bool = False

  def __call__(self, batch: Mapping[str, Array], key: Array) -> Mask:
    """The masks of a batch's rows, under a step's key."""
    return self.draw(batch, key, ratio=self.ratio, highest=self.ratio)

  def draw(
    self,
    batch: Mapping[str, Array],
    key: Array,
    *,
    ratio: Array | float,
    highest: float,
    sampler: TextSampler | None = None,
  ) -> Mask:
    """Draws one mask a row.

    Args:
      batch: the rows, see `maskjax.data.text`.
      key: a step's; the name `mask` is folded in.
      ratio: share of the tokens that is masked, of all rows or of each, [B].
      highest: what `ratio` is at most: arrays have room for as many masked tokens.
      sampler: in place of the policy's own.
    """
    text = Text.of(batch)
    num_masked = self.max_masked(highest, text.token.shape[1])
    row_keys = keys.example_keys(keys.named(key, "mask"), batch)
    count = jnp.minimum(self.count(ratio, text), num_masked)
    masked = jax.vmap(sampler or self.sampler)(row_keys, text, count)
    return Mask.at_most(masked, num_masked=num_masked, spare=text.is_padding)

  def count(self, ratio: Array | float, text: Text) -> Array:
    """How many tokens of each row a ratio masks: int32 [B], rounded as BERT does."""
    if self.of_words:
      share = ratio * text.is_word.sum(axis=-1)
      return jnp.maximum(jnp.ceil(share - 1e-4), 1).astype(jnp.int32)
    length = (~text.is_padding).sum(axis=-1)
    return jnp.maximum(jnp.round(ratio * length), 1).astype(jnp.int32)

  def max_masked(self, ratio: float, length: int) -> int:
    """How many tokens a ratio masks at most in a row of a length."""
    return max(1, math.ceil(ratio * length - 1e-6))

  def replace(
    self,
    batch: Mapping[str, Array],
    mask: Mask,
    key: Array,
    *,
    groups: Array | None = None,
  ) -> Text:
    """The rows as the encoder sees them: masked tokens replaced by the shares.

    Args:
      batch: the rows.
      mask: which of their tokens are masked.
      key: a step's; the name `replace` is folded in.
      groups: int32 [B, N], from 0 to N - 1: masked tokens of one number are replaced
        in the same way; each by itself when None.
    """
    text = Text.of(batch)
    to_mask, at_random = self.replaced
    ordinary = jnp.asarray(self.ids.ordinary)
    if groups is None:
      positions = jnp.arange(mask.masked.shape[-1], dtype=jnp.int32)
      groups = jnp.broadcast_to(positions, mask.masked.shape)

    def of_row(key: Array, tokens: Array, groups: Array) -> Array:
      of_kind, of_token = jax.random.split(key)
      kind = jax.random.uniform(of_kind, tokens.shape)[groups]
      drawn = jax.random.choice(of_token, ordinary, tokens.shape)
      other = jnp.where(kind < to_mask + at_random, drawn, tokens)
      return jnp.where(kind < to_mask, self.ids.mask, other)

    row_keys = keys.example_keys(keys.named(key, "replace"), batch)
    tokens = jax.vmap(of_row)(row_keys, text.token, groups)
    return text.with_tokens(jnp.where(mask.masked, tokens, text.token))

  def with_mask_tokens(self, batch: Mapping[str, Array], mask: Mask) -> Text:
    """The rows with mask tokens wherever they are masked."""
    text = Text.of(batch)
    return text.with_tokens(jnp.where(mask.masked, self.ids.mask, text.token))


def text_masking(
  ids: TokenIds,
  *,
  mask: str | Mapping[str, Any],
  mask_ratio: float,
  replaced: Sequence[float],
  of_words: bool = False,
) -> TextMasking:
  """Makes `TextMasking` from what a config gives.

  Args:
    ids: of the vocabulary.
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of the tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    of_words: see `TextMasking`.

  Raises:
    UserError: no such sampler, or shares that cannot be; names them.
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
  return TextMasking(
    sampler=resolve.bind(words, mask),
    ratio=mask_ratio,
    replaced=(replaced[0], replaced[1]),
    ids=ids,
    of_words=of_words,
  )
