"""Rows of tokens, as all text systems see them."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
  """Rows of tokens, several documents in a row or one; of a batch, or of one example.

  Attributes:
    token: int32 [B, N], ids of a vocabulary.
    segment: int32 [B, N], which of the row's documents a token is of, from 1 on; 0 for
      padding.
    position: int32 [B, N], the place in its document.
    word: int32 [B, N], the number of its word in the document; -1 for what is no word
      and is never masked: padding, and the tokens around a document.
    kind: int32 [B, N], 0 or 1: whether a token is of the first or the second part of
      its document, as questions and contexts are; None where there are no such parts.
    score: float32 [B, N], what a statistic of the data says of the token, for samplers
      that ask for it; None in other data.
  """

  token: Array
  segment: Array
  position: Array
  word: Array
  kind: Array | None = None
  score: Array | None = None

  @classmethod
  def of(cls, batch: Mapping[str, Array]) -> "Text":
    """The text of a batch, see `maskjax.data.packing`."""
    names = [field.name for field in dataclasses.fields(cls)]
    return cls(**{name: batch[name] for name in names if name in batch})

  @property
  def is_word(self) -> Array:
    """Which tokens may be masked: bool [B, N]."""
    return self.word >= 0

  @property
  def is_padding(self) -> Array:
    """Which tokens are of no document: bool [B, N]."""
    return self.segment == 0

  def pick(self, ids: Array) -> "Text":
    """The tokens at some places, int [B, K], that keep their positions."""
    return jax.tree.map(lambda rows: jnp.take_along_axis(rows, ids, axis=1), self)

  def saying(self, token: Array) -> "Text":
    """The same places with other tokens, int [B, N]."""
    return dataclasses.replace(self, token=token)
