"""Passages found by the products of embeddings, and how well."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maskjax.errors import UserError, did_you_mean
from maskjax.evaluation.features import Batches, evaluation_batches
from maskjax.objectives import abilities_of

Relevant = np.ndarray | Sequence[Collection[int]]

POOLS = ("own", "mean", "first")


def retrieval_scores(
  queries: np.ndarray,
  passages: np.ndarray,
  relevant: Relevant,
  *,
  recall: Sequence[int] = (1, 10, 100),
  mrr: int = 10,
  chunk: int = 256,
) -> dict[str, float]:
  """Recall and mean reciprocal rank, the metrics of MS MARCO's passages.

  Args:
    queries: float [Q, E], embeddings.
    passages: float [S, E].
    relevant: for each query the numbers of the passages that answer it, at least one;
      or int [Q], where that is one each.
    recall: how many of the first passages to look at: of each number, the mean share of
      a query's relevant passages that are among them.
    mrr: up to which rank one over the rank of the first relevant passage counts; 0
      after that.
    chunk: queries, and passages, that are compared at once.

  Returns:
    `recall@K` for each K, and `mrr@K`, from 0 to 1.

  Raises:
    UserError: numbers that cannot be, or a query without an answer.

  Example:
    >>> found = retrieval_scores(np.eye(3), np.eye(3), np.array([0, 2, 2]), recall=(1,))
    >>> {name: round(value, 2) for name, value in found.items()}
    {'recall@1': 0.67, 'mrr@10': 0.78}
  """
  answers = _answers(relevant, len(queries), len(passages))
  if min((*recall, mrr)) < 1:
    raise UserError(f"recall={tuple(recall)}, mrr={mrr}: expected at least 1")
  top = min(max((*recall, mrr)), len(passages))
  found = retrieve(queries, passages, top=top, chunk=chunk)
  pairs = zip(found, answers, strict=True)
  right = np.stack([np.isin(ranked, list(those)) for ranked, those in pairs])
  sizes = np.array([len(those) for those in answers])
  scores = {f"recall@{k}": float((right[:, :k].sum(1) / sizes).mean()) for k in recall}
  first = np.where(right[:, :mrr].any(axis=1), right[:, :mrr].argmax(axis=1), np.inf)
  return {**scores, f"mrr@{mrr}": float((1 / (first + 1)).mean())}


def retrieve(
  queries: np.ndarray, passages: np.ndarray, *, top: int, chunk: int = 256
) -> np.ndarray:
  """The passages with the largest products with each query, the largest first.

  Args:
    queries: float [Q, E].
    passages: float [S, E]; of several with the same product the first comes first.
    top: how many.
    chunk: queries, and passages, that are compared at once.

  Returns:
    int32 [Q, top].

  Raises:
    UserError: more than there are, or embeddings of different lengths.

  Example:
    >>> retrieve(np.array([[1.0, 0.1]]), np.eye(2), top=2).tolist()
    [[0, 1]]
  """
  if queries.ndim != 2 or passages.ndim != 2 or queries.shape[1] != passages.shape[1]:
    raise UserError(
      f"queries {list(queries.shape)}, passages {list(passages.shape)}: expected "
      "embeddings of the same length"
    )
  if not 1 <= top <= len(passages):
    raise UserError(f"top={top}: expected from 1 to the {len(passages)} passages")
  if chunk < 1:
    raise UserError(f"chunk={chunk}: expected at least 1")
  total = len(passages)

  @jax.jit
  def merge(
    best: tuple[Array, Array], queries: Array, passages: Array, start: Array
  ) -> tuple[Array, Array]:
    numbers = start + jnp.arange(len(passages))
    scores = jnp.matmul(queries, passages.T, precision="highest")
    scores = jnp.where(numbers < total, scores, -jnp.inf)
    # What was found before stands first, and so stays before its equals.
    scores = jnp.concatenate([best[0], scores], axis=1)
    numbers = jnp.broadcast_to(numbers, (len(queries), len(passages)))
    numbers = jnp.concatenate([best[1], numbers], axis=1)
    scores, ids = jax.lax.top_k(scores, top)
    return scores, jnp.take_along_axis(numbers, ids, axis=1)

  parts = _chunks(passages, chunk)
  found = []
  for part_of_queries in _chunks(queries, chunk):
    # Below all products, and so gone as soon as `top` passages were seen.
    best = (
      jnp.full((len(part_of_queries), top), -jnp.inf),
      jnp.full((len(part_of_queries), top), total, jnp.int32),
    )
    for number, part in enumerate(parts):
      best = merge(best, part_of_queries, part, jnp.int32(number * len(part)))
    found.append(np.asarray(best[1]))
  return np.concatenate(found)[: len(queries)]


def embedder(objective: Any, pool: str = "own") -> Callable[[Any, Any], Array]:
  """How a text system makes an embedding of each row's first document.

  Args:
    objective: has `features`; its `embed(variables, batch) -> [B, E]` is its own way.
    pool: `own`; `mean`, of the features of the document's tokens; or `first`, those of
      the token before it.

  Raises:
    UserError: there is no such way, or the system has none of its own.
  """
  if pool not in POOLS:
    raise UserError(f"pool={pool!r}: {did_you_mean(str(pool), POOLS)}")
  if pool == "own":
    embed = abilities_of(objective).embed
    if embed is None:
      raise UserError(
        f"pool='own': {type(objective).__name__} has no embeddings of its own: "
        "expected 'mean' or 'first'"
      )
    return embed

  def pooled(variables: Any, batch: Mapping[str, Array]) -> Array:
    features = objective.features(variables, batch).astype(jnp.float32)
    if pool == "first":
      return features[:, 0]
    where = (batch["segment"] == 1)[..., None]
    return jnp.where(where, features, 0).sum(axis=1) / where.sum(axis=1)

  return pooled


def document_embeddings(
  embed: Callable[[Any, Any], Array], mesh: Mesh
) -> Callable[[Any, Batches], np.ndarray]:
  """Compiles how each row of a data set becomes one vector.

  Args:
    embed: see `embedder`. The rows should hold a document each: `pack=False`.
    mesh: the devices.

  Returns:
    A function of variables and data, see `evaluation_batches`, which returns float32
    [R, E], of the R rows in order.
  """
  everywhere = NamedSharding(mesh, P())

  @functools.partial(jax.jit, out_shardings=everywhere)
  def compute(variables: Any, batch: Any) -> tuple[Array, Array]:
    return embed(variables, batch).astype(jnp.float32), batch["valid"]

  def read(variables: Any, batches: Batches) -> np.ndarray:
    found = []
    with jax.set_mesh(mesh):
      for batch in evaluation_batches(batches, mesh):
        vectors, valid = (np.asarray(a) for a in compute(variables, batch))
        found.append(vectors[valid])
    return np.concatenate(found)

  return read


def _chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
  """Rows in parts of one shape, the last one filled up with zeros."""
  size = min(size, len(rows))
  filled = np.pad(rows, ((0, -len(rows) % size), (0, 0))).astype(np.float32)
  return [filled[start : start + size] for start in range(0, len(filled), size)]


def _answers(relevant: Relevant, queries: int, passages: int) -> list[set[int]]:
  each: Iterable[Any] = relevant
  if isinstance(relevant, np.ndarray) and relevant.ndim == 1:
    each = relevant[:, None]
  answers = [{int(number) for number in those} for those in each]
  if len(answers) != queries or not queries:
    raise UserError(
      f"relevant has {len(answers)} entries: expected one for each of {queries} queries"
    )
  for number, those in enumerate(answers):
    if not those or min(those) < 0 or max(those) >= passages:
      raise UserError(
        f"relevant[{number}]={sorted(those)}: expected passages from 0 to "
        f"{passages - 1}, at least one"
      )
  return answers
