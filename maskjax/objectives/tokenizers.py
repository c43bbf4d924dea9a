"""Tokenizers: what gives each patch a code, for systems that predict codes.

A tokenizer's arrays are the entry `tokenizer` of the objective's `extra`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from jax import Array

from maskjax import resolve
from maskjax.errors import UserError
from maskjax.objectives.objective import Batch, Variables

__all__ = ["frozen"]


class Tokenizer(Protocol):
  """What gives an objective codes to predict."""

  @property
  def workdir(self) -> str:
    """The run whose arrays it begins with; none when empty."""

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of codes of an image."""

  @property
  def num_codes(self) -> int:
    """How many codes there are: K."""

  def init(self, key: Array, batch: Batch) -> Any:
    """Makes its arrays for a batch of this shape."""

  def codes(self, state: Any, batch: Batch) -> Array:
    """The codes of whole images: int32 [B, N], from 0 to K - 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
  """Another objective's codes under fixed variables; `frozen` makes it.

  Attributes:
    objective: has `init`, `grid`, `num_codes` and `codes(params, codebook, batch)`,
      of which `codebook` is an entry of its `extra`.
    workdir: of its run; when empty, its variables stay as they were made.
  """

  objective: Any
  workdir: str

  @property
  def grid(self) -> tuple[int, int]:
    """See `Tokenizer`."""
    return self.objective.grid

  @property
  def num_codes(self) -> int:
    """See `Tokenizer`."""
    return self.objective.num_codes

  def init(self, key: Array, batch: Batch) -> Variables:
    """Fresh variables, into whose place those of `workdir` come."""
    params, extra = self.objective.init(key, batch)
    return Variables(params, {"codebook": extra["codebook"]})

  def codes(self, state: Variables, batch: Batch) -> Array:
    """See `Tokenizer`."""
    codes = self.objective.codes(state.params, state.extra["codebook"], batch)
    return jax.lax.stop_gradient(codes)


def frozen(*, objective: Mapping[str, Any], workdir: str = "") -> Frozen:
  """Makes a tokenizer that does not learn.

  Args:
    objective: `name` and keywords of an objective with `codes`, as a config has them;
      it is given the images of the system.
    workdir: of its run; when empty, its variables are random ones.
  """
  from maskjax import objectives

  tokenizer = resolve.build(objectives, objective)
  if not hasattr(tokenizer, "codes"):
    raise UserError(
      f"tokenizer.objective.name={objective['name']!r} gives no codes: expected one "
      "that does, like 'vqkd'"
    )
  return Frozen(objective=tokenizer, workdir=workdir)
