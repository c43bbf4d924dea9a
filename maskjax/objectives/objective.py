"""The interface of objectives to all other code.

An objective is any object with `init` and `loss`; what else it can do is found by the
names of its methods, see `maskjax.objectives.abilities`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.losses import Loss

Batch = Mapping[str, Array]


class Variables(NamedTuple):
  """All that an objective has learned.

  Attributes:
    params: arrays that the optimizer changes.
    extra: arrays that the objective itself changes, by name: averages of the student,
      running statistics, codebooks.
  """

  params: Any
  extra: Any = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Step:
  """A step of a run, as an objective sees it.

  Attributes:
    key: the step's random key; `maskjax.keys.example_keys` makes one an example of it.
    number: how many steps were done before, int scalar.
    num_steps: how many steps the whole run has, for what changes over a run.

  Example:
    >>> float(Step(jax.random.key(0), number=5, num_steps=20).progress)
    0.25
  """

  key: Array
  number: Array | int = 0
  num_steps: int = dataclasses.field(default=1, metadata=dict(static=True))

  @property
  def progress(self) -> Array:
    """The share of the run that is done, from 0 to 1: float32 scalar."""
    return jnp.clip(self.number / self.num_steps, 0, 1)


class Objective(Protocol):
  """What a user writes to add a system.

  Both methods are pure: no files, no printing, no state. Further methods are used where
  there are such, see `maskjax.objectives.abilities`.
  """

  def init(self, key: Array, batch: Batch) -> Variables:
    """Makes the variables that a batch of this shape needs.

    In a run it is given the first batch, so that a system may compute from its examples
    what stays in `extra`, such as centroids.

    Args:
      key: for all random numbers.
      batch: arrays [B, ...].
    """

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The loss of a batch, which is differentiated with respect to `variables.params`.

    Args:
      variables: see `Variables`.
      batch: arrays [B, ...], among them `index`, int [B], see `maskjax.keys`.
      step: see `Step`.
    """


def first_example(batch: Batch) -> Batch:
  """A batch of the first example alone, which is enough to make parameters."""
  return {name: rows[:1] for name, rows in batch.items()}


def valid(batch: Batch) -> Array:
  """Which examples count: bool [B].

  The last batch of an evaluation is padded with copies, which do not.
  """
  if "valid" in batch:
    return batch["valid"]
  return jnp.ones(len(next(iter(batch.values()))), bool)
