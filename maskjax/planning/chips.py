"""The TPUs that a plan can be made for, and their slices."""

import dataclasses
import math
from collections.abc import Mapping

from maskjax.errors import UserError, did_you_mean

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """The published properties of a chip.

  Attributes:
    hbm_bytes: memory that a program can use.
    peak_flops: bfloat16 operations per second.
    hbm_bandwidth: bytes per second.
    link_bandwidth: bytes per second that can leave the chip over all its links
      together, half of the published bandwidth of both directions.
    clock: cycles per second of the compiler's estimates.
    clock_is_assumed: whether the clock is computed from the peak and the number of
      matrix units, and no estimate of the compiler confirms it.
    slices: topologies of one slice, as `AxB` or `AxBxC` chips.
  """

  hbm_bytes: int
  peak_flops: float
  hbm_bandwidth: float
  link_bandwidth: float
  clock: float
  clock_is_assumed: bool = False
  slices: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

# From the page of each chip below https://cloud.google.com/tpu/docs. A clock is the
# peak over the operations of a cycle: 2 x 128 x 128 for each of the 8 matrix units of
# a v4 or v5p and the 4 of a v5e, and 2 x 256 x 256 for the 4 assumed of a v6e.
CHIPS: Mapping[str, Chip] = {
  "v4": Chip(  # /v4
    hbm_bytes=32 * GIB,
    peak_flops=275e12,
    hbm_bandwidth=1228e9,
    link_bandwidth=300e9,
    clock=1.05e9,
    clock_is_assumed=True,
    slices=(*_CUBES, "8x8x12", "8x8x16", "8x16x16"),
  ),
  "v5e": Chip(  # /v5e
    hbm_bytes=16 * GIB,
    peak_flops=197e12,
    hbm_bandwidth=819e9,
    link_bandwidth=200e9,
    clock=1.503e9,
    slices=_FLAT,
  ),
  "v5p": Chip(  # /v5p
    hbm_bytes=95 * GIB,
    peak_flops=459e12,
    hbm_bandwidth=2765e9,
    link_bandwidth=600e9,
    clock=1.75e9,
    slices=(*_CUBES, "8x8x16", "8x16x16", "16x16x16", "16x16x24"),
  ),
  "v6e": Chip(  # /v6e
    hbm_bytes=32 * GIB,
    peak_flops=918e12,
    hbm_bandwidth=1640e9,
    link_bandwidth=400e9,
    clock=1.75e9,
    clock_is_assumed=True,
    slices=_FLAT,
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
  """The connected chips of one job.

  Attributes:
    kind: name of the chip.
    shape: chips along each axis.
  """

  kind: str
  shape: tuple[int, ...]

  @property
  def chip(self) -> Chip:
    return CHIPS[self.kind]

  @property
  def num_chips(self) -> int:
    return math.prod(self.shape)

  def __str__(self) -> str:
    return f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse_topology(name: str) -> Slice:
  """Parses `CHIP:AxBxC`.

  Args:
    name: for example `v5p:4x4x4`.

  Raises:
    UserError: no such chip, or no such slice of it; lists those that exist.

  Example:
    >>> parse_topology("v5p:4x4x4").num_chips
    64
  """
  kind, _, shape = name.partition(":")
  if kind not in CHIPS:
    raise UserError(
      f"--topology={name}: no chip {kind!r}, {did_you_mean(kind, CHIPS)}; expected "
      "CHIP:SHAPE, for example v5p:4x4x4"
    )
  if shape not in CHIPS[kind].slices:
    raise UserError(
      f"--topology={name}: no slice {shape!r} of {kind}; "
      f"there are: {', '.join(CHIPS[kind].slices)}"
    )
  return Slice(kind=kind, shape=tuple(map(int, shape.split("x"))))
