"""How an objective draws the masks of a batch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array

from maskjax import keys, resolve
from maskjax.masking import samplers
from maskjax.masking.mask import Mask, Sampler, draw, num_masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking:
  """A sampler and how many tokens it masks; `masking_of` makes it from a ratio.

  Attributes:
    sampler: draws the mask of one example, see `maskjax.masking.Sampler`.
    grid: sides of the token grid; N is their product.
    num_masked: how many of the N tokens it masks, the same of every example.
  """

  sampler: Sampler
  grid: tuple[int, ...]
  num_masked: int

  def __call__(self, batch: Mapping[str, Array], key: Array) -> Mask:
    """The masks of a batch's examples, under a step's key.

    Args:
      batch: see `maskjax.keys.example_keys`.
      key: a step's; the name `mask` is folded in.
    """
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    return draw(self.sampler, example_keys, self.grid, num_masked=self.num_masked)


def masking_of(
  grid: Sequence[int],
  mask: str | Mapping[str, Any],
  mask_ratio: float,
  *,
  rounding: str = "up",
) -> Masking:
  """Makes `Masking` from what a config gives.

  Args:
    grid: sides of the token grid.
    mask: name of a sampler of `maskjax.masking.samplers`, or an import path, and its
      keywords.
    mask_ratio: share of the tokens that is masked.
    rounding: of their number, see `maskjax.masking.num_masked`.

  Raises:
    UserError: there is no such sampler, no such share or no such rounding.

  Example:
    >>> masking_of((14, 14), "random", 0.75).num_masked
    147
  """
  return Masking(
    sampler=resolve.bind(samplers, mask),
    grid=tuple(grid),
    num_masked=num_masked(math.prod(grid), mask_ratio, rounding),
  )
