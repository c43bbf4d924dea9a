"""A trained text system, as a workdir holds it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from maskjax import networks, objectives, resolve, storage
from maskjax import workdir as workdirs
from maskjax.data.packing import packed
from maskjax.errors import UserError
from maskjax.evaluation import embedder
from maskjax.objectives import Variables, abilities_of
from maskjax.objectives.abilities import needed
from maskjax.tokens import Text
from maskjax.tokens import vocabulary as vocabularies
from maskjax.tokens.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
  """A text system with its parameters and its vocabulary.

  Attributes:
    objective: predicts tokens, see `maskjax.objectives.abilities.PredictsTokens`.
    variables: its trained parameters.
    vocabulary: of its tokens.
    batch_size: rows that are computed at once.
  """

  objective: Any
  variables: Variables
  vocabulary: Vocabulary
  batch_size: int = 32

  @property
  def length(self) -> int:
    """Tokens of a text at most, with those around it."""
    return self.objective.rows.length

  def rows(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Each text as a row: the columns of `maskjax.data.packing.packed`.

    The rows are no longer than the longest text needs, rounded up to a power of two.

    Raises:
      UserError: a text is longer than the model can read; names it.
    """
    counts = [len(found.ids) + 2 for found in self.vocabulary.encode(texts)]
    for text, count in zip(texts, counts, strict=True):
      if not 2 < count <= self.length:
        raise UserError(
          f"the text {text[:40]!r} has {count - 2} tokens: expected 1 to "
          f"{self.length - 2}"
        )
    length = min(self.length, 1 << (max(counts) - 1).bit_length())
    return packed(texts, self.vocabulary, length=length, pack=False)

  @functools.cached_property
  def features_of(self) -> Any:
    """Compiled: variables and a batch of rows to features of tokens, [B, N, D]."""
    return jax.jit(self.objective.features)

  def token_embeddings(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Features of the tokens of each text, without those around it: float32 [T, D]."""
    columns = self.rows(texts)
    features = self.batched(
      lambda batch: self.features_of(self.variables, batch), columns
    )
    inside = columns["position"] > 0
    # The last token of a row, which ends its text, is followed by padding or nothing.
    inside &= np.pad(columns["segment"][:, 1:], ((0, 0), (0, 1))) > 0
    return [features[row][where] for row, where in enumerate(inside)]

  def sentence_embeddings(
    self, texts: Sequence[str], *, pool: str = "mean"
  ) -> np.ndarray:
    """A vector of each text: float32 [S, D].

    Args:
      texts: S of them.
      pool: `mean`, of the features of all tokens, as sentence encoders do
        (https://arxiv.org/abs/1908.10084); `first`, that of the token before them; or
        `own`, the system's, where it has one.

    Raises:
      UserError: there is no such way, or a text is too long.
    """
    embed = jax.jit(embedder(self.objective, pool))
    return self.batched(lambda batch: embed(self.variables, batch), self.rows(texts))

  def batched(self, compute: Any, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Computes rows a batch at a time, the last one filled up with copies.

    Args:
      compute: from a batch to an array [batch_size, ...].
      columns: [R, ...] each.

    Returns:
      float32 [R, ...].
    """
    count = len(next(iter(columns.values())))
    size = min(self.batch_size, count)
    found = []
    for start in range(0, count, size):
      ids = np.minimum(np.arange(start, start + size), count - 1)
      batch = {name: jnp.asarray(column[ids]) for name, column in columns.items()}
      found.append(np.asarray(compute(batch), np.float32)[: count - start])
    return np.concatenate(found)

  @functools.cached_property
  def predict(self) -> Any:
    """Compiled: a text and a mask to log-probabilities [B, M, V] of masked tokens."""
    predict = needed(
      abilities_of(self.objective).predict, self.objective, "predict", "masked tokens"
    )

    @jax.jit
    def log_probabilities(variables: Variables, text: Text, mask: Any) -> Array:
      logits = predict(variables, text, mask)
      # No text has special tokens.
      special = jnp.zeros(logits.shape[-1], bool)
      special = special.at[jnp.asarray(self.objective.rows.ids.special)].set(True)
      return jax.nn.log_softmax(jnp.where(special, -jnp.inf, logits), axis=-1)

    return functools.partial(log_probabilities, self.variables)


def load(workdir: str | Path, *, step: int | None = None) -> Trained:
  """Reads a trained text system.

  Args:
    workdir: of a run, or of imported weights with their tokenizer.
    step: which checkpoint; the newest when None.

  Raises:
    UserError: there is no such workdir or checkpoint, or it is of no text system.
  """
  config = workdirs.read_config(workdir)
  objective = resolve.build(objectives, config.objective)
  file = storage.reach(workdir) / workdirs.TOKENIZER
  found = abilities_of(objective)
  if found.check_vocabulary is None or not file.is_file():
    raise UserError(
      f"{workdir}: expected a run of a text system, with its {workdirs.TOKENIZER}"
    )
  vocabulary = vocabularies.load(str(file))
  found.check_vocabulary(vocabulary)
  checkpoints = workdirs.checkpoints(workdir, config)
  _, params = networks.stored(config, objective, checkpoints, step)
  params = jax.tree.map(jnp.asarray, params)  # once, not with every batch
  return Trained(
    objective=objective, variables=Variables(params), vocabulary=vocabulary
  )
