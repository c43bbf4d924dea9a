"""What all systems that see rows of tokens have in common, whether they mask or not."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.objectives.objective import Batch, Variables
from maskjax.tokens import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
  """What a system has to know of the vocabulary.

  Attributes:
    size: number of tokens V.
    pad: the token that rows are filled up with.
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
class RowObjective(abc.ABC):
  """A system that sees rows of tokens; each adds `init` and `loss`.

  Batches are rows of `maskjax.data.text`.

  Attributes:
    model: a module of `maskjax.models.text`. Its `encoder` has a `length`, and its
      method `encode` gives codes of texts.
    tokens: of the vocabulary.
    reads_score: whether rows need a `score`, see `maskjax.data.text`.
  """

  model: Any
  tokens: Tokens
  reads_score: bool = False

  @abc.abstractmethod
  def init(self, key: Array, batch: Batch) -> Variables:
    """See `maskjax.objectives.Objective`."""

  @abc.abstractmethod
  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """See `maskjax.objectives.Objective`."""

  def text(self, batch: Batch) -> Text:
    """The rows of a batch.

    Raises:
      UserError: they are longer than the model can read.
    """
    found, most = batch["token"].shape[1], self.model.encoder.length
    if found > most:
      raise UserError(
        f"the data has rows of {found} tokens: expected at most objective.length={most}"
      )
    return Text.of(batch)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many rows."""
    row = jax.ShapeDtypeStruct((batch_size, self.model.encoder.length), jnp.int32)
    scored = self.reads_score
    return {
      **dict.fromkeys(("token", "segment", "position", "word", "characters"), row),
      **({"score": jax.ShapeDtypeStruct(row.shape, jnp.float32)} if scored else {}),
      "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }

  def check_vocabulary(self, vocabulary: Any) -> None:
    """Checks that the data's tokens are those of the model.

    Args:
      vocabulary: a `maskjax.tokens.vocabulary.Vocabulary`.

    Raises:
      UserError: names the difference.
    """
    if len(vocabulary) > self.tokens.size:
      raise UserError(
        f"the data's vocabulary has {len(vocabulary)} tokens: expected at most "
        f"objective.vocab_size={self.tokens.size}"
      )
    if vocabulary.mask != self.tokens.mask:
      raise UserError(
        f"the data's vocabulary masks by token {vocabulary.mask}: expected "
        f"objective.mask_id={self.tokens.mask}"
      )

  def features(self, params: Any, batch: Batch) -> Array:
    """Codes of all tokens, nothing masked: [B, N, D]."""
    return self.model.apply({"params": params}, self.text(batch), method="encode")

  def rngs(self, batch: Batch, key: Array) -> dict[str, Array]:
    """What the model needs to drop numbers at random; nothing where it drops none."""
    options = self.model.encoder.options
    if not (options.dropout or options.attention_dropout):
      return {}
    # The first row's key, so that microbatches drop different ones.
    return {"dropout": keys.example_keys(keys.named(key, "dropout"), batch)[0]}
