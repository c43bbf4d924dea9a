"""Rows of tokens: the batches of text, as all text systems see them."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
  """Rows of N tokens, each row with one document or several.

  The arrays are those of a batch, as below, or of one example, without the axis B.

  Attributes:
    token: int32 [B, N], ids of a vocabulary.
    segment: int32 [B, N], the number of the token's document in the row, from 1; 0 for
      padding.
    position: int32 [B, N], the token's position in its document, from 0.
    word: int32 [B, N], the number of the token's word in the document, from 0; -1 for
      tokens that are never masked: padding, and the special tokens around a document.
    kind: int32 [B, N], 0 in the first part of a document and 1 in the second, such as a
      question and its context; None in data without such parts.
    score: float32 [B, N], a statistic of the training data for each token, which some
      samplers need; None in data without it.
  """

  token: Array
  segment: Array
  position: Array
  word: Array
  kind: Array | None = None
  score: Array | None = None

  @classmethod
  def of(cls, batch: Mapping[str, Array]) -> "Text":
    """The text of a batch, whose columns `maskjax.data.packing` describes."""
    names = [field.name for field in dataclasses.fields(cls)]
    return cls(**{name: batch[name] for name in names if name in batch})

  @property
  def is_word(self) -> Array:
    """Which tokens may be masked: bool [B, N]."""
    return self.word >= 0

  @property
  def is_padding(self) -> Array:
    """Which tokens are padding, and so of no document: bool [B, N]."""
    return self.segment == 0

  def take(self, ids: Array) -> "Text":
    """Takes the tokens at some indices, which keep their positions.

    Args:
      ids: int [B, K], indices of tokens in the rows.

    Returns:
      Rows of K tokens.
    """
    return jax.tree.map(lambda rows: jnp.take_along_axis(rows, ids, axis=1), self)

  def with_tokens(self, token: Array) -> "Text":
    """Replaces the ids of the tokens, by int [B, N], and nothing else."""
    return dataclasses.replace(self, token=token)
