"""What a system is to the rest of the house."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from maskjax.losses import Loss

Batch = Mapping[str, Array]


class Variables(NamedTuple):
  """What an objective has learned.

  Attributes:
    params: arrays that the optimizer changes.
    extra: arrays that the objective itself changes (EMA teachers, queues).
  """

  params: Any
  extra: Any = ()


class Objective(Protocol):
  """What the training loop asks of a system; write these two methods.

  One without `loss` is but a teacher.

  An objective may have further methods, which are used where they are found:

  - `evaluate(params, extra, batch, key) -> Loss`, in place of `loss` on held-out
    data, where the two differ (mixing of images, dropped paths);
  - `update_extra(params, extra, step, sums) -> extra`, after each optimizer step,
    with the sums over the batch that its losses carried;
  - `restart(params, step, batch, key) -> params`, after that, for systems whose
    parameters begin anew in each of several stages;
  - `pretrained -> {name: workdir}`, a property: the entries of `extra` whose arrays
    are parameters of other runs, read before the first step; an entry that is
    `Variables` takes of the run's own `extra` the entries that it has;
  - `features(params, batch) -> [B, N, D] or [B, D]`, for the probes;
  - `embed(params, batch) -> [B, E]`, of documents, for dense retrieval;
  - `reads_extra`, True where `features` and `reconstruct` take `Variables` as their
    `params`, because they need what `extra` holds, see `readable`;
  - `targets(batch) -> [B, N, P]`, to compare with predicting their mean;
  - `reconstruct(params, batch, key) -> {name: images [B, H, W, C]}`, for the
    pictures, in the order in which they are shown;
  - `batch_shapes(batch_size) -> {name: jax.ShapeDtypeStruct}`, of the batches that
    it trains on, so that `maskjax plan` need not read data.

  All are pure: no files, no printing, no state.
  """

  def init(self, key: Array, batch: Batch) -> Variables:
    """Makes the variables that a batch of this shape needs.

    In a run it is given the first batch; a system may compute from its examples what
    stays in `extra` as it is, such as centroids.
    """

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Judges the parameters on a batch.

    Args:
      params: see `Variables`.
      extra: see `Variables`.
      batch: arrays [B, ...], among them `index`, int [B], see `maskjax.keys`.
      key: this step's key; `maskjax.keys.example_keys` makes one an example.
    """


def readable(objective: Any, variables: Variables) -> Any:
  """What an objective's `features` and `reconstruct` take as `params`."""
  return variables if getattr(objective, "reads_extra", False) else variables.params


def collections(params: Any) -> dict[str, Any]:
  """Parameters, or `Variables` with further collections as `extra`, as Linen has them.

  Example:
    >>> collections(Variables({"a": 1}, {"statistics": {"b": 2}}))
    {'params': {'a': 1}, 'statistics': {'b': 2}}
  """
  if isinstance(params, Variables):
    return {"params": params.params, **(params.extra or {})}
  return {"params": params}


def valid(batch: Batch) -> Array:
  """Which examples count: bool [B].

  The last batch of an evaluation is filled up with copies, which do not.
  """
  if "valid" in batch:
    return batch["valid"]
  return jnp.ones(len(next(iter(batch.values()))), bool)
