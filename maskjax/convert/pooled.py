"""Vectors of words by a BERT of Hugging Face Transformers."""

from collections.abc import Sequence

import jax
import numpy as np

from maskjax import systems
from maskjax.convert import bert, safetensors
from maskjax.errors import UserError
from maskjax.objectives import Variables
from maskjax.tokens import vocabulary as vocabularies

_POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")


def pooled_words(
  words: Sequence[str], *, folder: str, batch_size: int = 256
) -> np.ndarray:
  """BERT's pooled output for each word, read alone.

  That is a dense layer and a hyperbolic tangent of the features of the token before the
  word, as BERT was trained to predict the next sentence from it.

  Args:
    words: U words.
    folder: holds `config.json`, safetensors and `tokenizer.json` of a BERT.
    batch_size: how many words are read at once.

  Returns:
    float32 [U, D].

  Raises:
    UserError: the folder holds no BERT, or one without a pooler.
  """
  theirs, tensors = safetensors.read(folder)
  hyperparameters, params = bert.from_hf(theirs, tensors)
  missing = [name for name in _POOLER if name not in tensors]
  if missing:
    raise UserError(f"{folder} has no {missing[0]}: expected a BERT with its pooler")
  kernel, bias = (tensors[name] for name in _POOLER)
  vocabulary = vocabularies.load(folder)
  objective = systems.bert(**hyperparameters)
  features = jax.jit(objective.features)
  rows = _rows(words, vocabulary, objective.rows.length)
  pooled = []
  for start in range(0, len(words), batch_size):
    batch = {name: column[start : start + batch_size] for name, column in rows.items()}
    short = batch_size - len(batch["token"])  # so that all batches have one shape
    batch = {k: np.pad(v, ((0, short), (0, 0)), mode="edge") for k, v in batch.items()}
    first = np.asarray(features(Variables(params), batch))[: batch_size - short, 0]
    pooled.append(np.tanh(first @ kernel.T + bias))
  return np.concatenate(pooled)


def _rows(
  words: Sequence[str], vocabulary: vocabularies.Vocabulary, most: int
) -> dict[str, np.ndarray]:
  """A row of each word, as long as the longest: int32 [U, L] each."""
  encoded = [found.ids[: most - 2] for found in vocabulary.encode(words)]
  shape = (len(words), 2 + max(len(ids) for ids in encoded))
  token = np.full(shape, vocabulary.pad, np.int32)
  segment = np.zeros(shape, np.int32)
  for row, ids in enumerate(encoded):
    token[row, : len(ids) + 2] = [vocabulary.first, *ids, vocabulary.last]
    segment[row, : len(ids) + 2] = 1
  position = np.arange(shape[1], dtype=np.int32) * segment
  return {
    "token": token,
    "segment": segment,
    "position": position,
    "word": segment - 1,
  }
