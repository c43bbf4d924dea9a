"""Bags of words: which tokens a document has, in whatever order and number.

Rows may hold several documents. Of each row the first S count, S being fixed,
since shapes are; a row of fewer has empty bags.
"""

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.tokens import Text


def members(text: Text, documents: int) -> Array:
  """Which tokens of a row each of its first documents has: bool [B, S, N]."""
  numbers = jnp.arange(1, documents + 1)[:, None]
  return text.segment[:, None] == numbers


def firsts(text: Text, documents: int) -> Array:
  """Where the first token of each of a row's documents is: int32 [B, S].

  0 where there is no such document.

  Example:
    >>> row = dict(token=[[1, 5, 1, 6]], position=[[0, 1, 0, 1]])
    >>> row = {name: jnp.array(values) for name, values in row.items()}
    >>> text = Text(**row, segment=jnp.array([[1, 1, 2, 2]]), word=row["token"])
    >>> firsts(text, 3).tolist()
    [[0, 2, 0]]
  """
  return members(text, documents).argmax(axis=-1).astype(jnp.int32)


def bags(text: Text, ordinary: Array, *, documents: int) -> Array:
  """The tokens of each of a row's documents: bool [B, S, V].

  Args:
    text: rows, with nothing masked.
    ordinary: bool [V], the tokens that bags may have.
    documents: S.
  """

  def of_row(tokens: Array, where: Array) -> Array:
    none = jnp.zeros((documents, len(ordinary)), bool)
    return none.at[:, tokens].max(where)

  where = (ordinary[text.token] & text.is_word)[:, None] & members(text, documents)
  return jax.vmap(of_row)(text.token, where)


def bag_errors(logits: Array, bags: Array) -> Array:
  """The mean cross-entropy of the tokens of a bag, in nats: float32 [...].

  As if each token of the bag were the right answer, equally often
  (https://arxiv.org/abs/2401.11248); 0 for an empty bag.

  Args:
    logits: [..., V].
    bags: bool [..., V].

  Example:
    >>> bag = jnp.array([True, True, False, False])
    >>> print(f"{bag_errors(jnp.zeros(4), bag):.4f}")
    1.3863
  """
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  total = jnp.where(bags, log_p, 0).sum(axis=-1)
  return -total / jnp.maximum(bags.sum(axis=-1), 1)
