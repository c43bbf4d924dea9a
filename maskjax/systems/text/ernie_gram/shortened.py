"""Rows in which each masked n-gram has one position left."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.masking import Mask
from maskjax.masking.mask import gather
from maskjax.tokens import Text


class Shortened(NamedTuple):
  """Rows in which each masked n-gram has one position left.

  Attributes:
    text: the rows; removed tokens are padding, and positions close up.
    identities: int32 [B, N], see `NgramLM`, of the rows as they are.
    starts: bool [B, N], where masked n-grams stand, and masked tokens of none.
    symbols: [B, M], where mask symbols stand: the position is the n-gram's.
    symbol_ids: int32 [B, M], which token of its n-gram each stands for.
  """

  text: Text
  identities: Array
  starts: Array
  symbols: Text
  symbol_ids: Array


def shortened(text: Text, mask: Mask, *, vocab_size: int, longest: int) -> Shortened:
  """Leaves one position of each masked n-gram.

  Args:
    text: the rows, their scores those of `maskjax.data.statistics.ngrams`.
    mask: masks n-grams whole.
    vocab_size: number of tokens V.
    longest: tokens of an n-gram at most.
  """
  assert text.score is not None
  positions = jnp.arange(text.token.shape[1])
  goes_on = text.is_word & (text.score < 0)
  begin = jax.lax.cummax(jnp.where(goes_on, 0, positions), axis=1)
  gone = mask.masked & goes_on
  before = jnp.cumsum(gone, axis=1)
  before = before - gather(before, positions - text.position)
  number = text.score.astype(jnp.int32)
  left = Text(
    token=text.token,
    segment=jnp.where(gone, 0, text.segment),
    position=jnp.where(gone, 0, text.position - before),
    word=jnp.where(gone, -1, text.word),
  )
  ids = mask.masked_ids
  symbols = left.take(jnp.where(mask.is_masked, gather(begin, ids), ids))
  segment = jnp.where(mask.is_masked, symbols.segment, 0)
  return Shortened(
    text=left,
    identities=jnp.where(number > 0, vocab_size - 1 + number, text.token),
    starts=mask.masked & ~goes_on,
    symbols=dataclasses.replace(symbols, segment=segment),
    symbol_ids=jnp.minimum(ids - gather(begin, ids), longest - 1),
  )
