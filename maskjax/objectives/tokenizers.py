"""Tokenizers: what gives each patch a code, for systems that predict codes.

A tokenizer's arrays are the entry `tokenizer` of the objective's `extra`.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Mean, cross_entropy
from maskjax.objectives.abilities import RANDOM, abilities_of
from maskjax.objectives.objective import Batch, Variables
from maskjax.tokens import Patches

__all__ = ["frozen"]


class Tokenizer(Protocol):
  """What gives an objective codes to predict."""

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The run whose arrays it begins with, see `maskjax.objectives.abilities`."""

  @property
  def grid(self) -> tuple[int, ...]:
    """Sides of the grid of codes of an example."""

  @property
  def num_codes(self) -> int:
    """Size K of the codebook."""

  def init(self, key: Array, batch: Batch) -> Any:
    """Makes its arrays for a batch of this shape."""

  def codes(self, state: Any, batch: Batch) -> Array:
    """The codes of whole examples, without gradients: int32 [B, N], from 0 to K - 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
  """Another objective's codes under fixed variables; `frozen` makes it.

  Attributes:
    objective: has codes, see `maskjax.objectives.abilities.HasCodes`, which depend on
      its parameters and on the entry `codebook` of its `extra`.
    workdir: see `frozen`.
  """

  objective: Any
  workdir: str

  @property
  def pretrained(self) -> Mapping[str, str]:
    """See `Tokenizer`."""
    return {} if self.workdir == RANDOM else {"tokenizer": self.workdir}

  @property
  def grid(self) -> tuple[int, ...]:
    """See `Tokenizer`."""
    return self.objective.grid

  @property
  def num_codes(self) -> int:
    """See `Tokenizer`."""
    return self.objective.num_codes

  def init(self, key: Array, batch: Batch) -> Variables:
    """Fresh variables, which those of `workdir` replace."""
    params, extra = self.objective.init(keys.named(key, "tokenizer"), batch)
    return Variables(params, {"codebook": extra["codebook"]})

  def codes(self, state: Variables, batch: Batch) -> Array:
    """See `Tokenizer`."""
    return jax.lax.stop_gradient(self.objective.codes(state, batch))


def build(spec: str | Mapping[str, Any], patches: Patches) -> Tokenizer:
  """Makes the tokenizer that a config names.

  Args:
    spec: a name in this module, or an import path, and its keywords.
    patches: what has to have a code each.

  Raises:
    UserError: there is no such tokenizer, or it cuts examples otherwise.
  """
  tokenizer = resolve.build(sys.modules[__name__], spec)
  if tokenizer.grid != patches.grid:
    found, expected = (
      "x".join(map(str, grid)) for grid in (tokenizer.grid, patches.grid)
    )
    raise UserError(
      f"tokenizer gives {found} codes: expected {expected}, by image_size and "
      "patch_size"
    )
  return tokenizer


def frozen(*, objective: Mapping[str, Any], workdir: str = "") -> Frozen:
  """Makes a tokenizer that does not learn.

  Args:
    objective: `name` and keywords of an objective with `codes`, as a config has them;
      it is given the examples of the system.
    workdir: of its run; a run without one does not start. "random" leaves its
      variables as they are made.

  Raises:
    UserError: the objective gives no codes.
  """
  from maskjax import objectives

  tokenizer = resolve.build(objectives, objective)
  if abilities_of(tokenizer).codes is None:
    raise UserError(
      f"tokenizer.objective.name={objective['name']!r} gives no codes: expected one "
      "that does, like 'vqkd'"
    )
  return Frozen(objective=tokenizer, workdir=workdir)


def code_cross_entropy(logits: Array, codes: Array) -> Array:
  """Cross-entropy of logits [..., K] with codes, int [...]: float32 [...]."""
  return cross_entropy(logits, jax.nn.one_hot(codes, logits.shape[-1]))


def code_accuracy(logits: Array, codes: Array, where: Array) -> Mean:
  """How many of the codes have the highest logit.

  Args:
    logits: [..., K].
    codes: int [...].
    where: bool, which of them count.
  """
  return Mean.of(logits.argmax(axis=-1) == codes, where)
