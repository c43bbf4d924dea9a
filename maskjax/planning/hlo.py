"""Parses the text of a compiled program: computations and operations.

Of an operation only name, shape, operands and attributes are parsed.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_COMMENT = re.compile(r"/\*.*?\*/")
_CALLED = re.compile(
  r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)="
  r"(\{[^}]*\}|%?[\w.\-]+)"
)
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0}


@dataclasses.dataclass(frozen=True)
class Array:
  """An array of a shape.

  Attributes:
    dtype: as HLO writes it.
    dims: its sizes.
    bytes: without padding.
    padded_bytes: with the padding of its layout's tiles.
    in_hbm: whether it is in HBM.
  """

  dtype: str
  dims: tuple[int, ...]
  bytes: int
  padded_bytes: int
  in_hbm: bool


@functools.cache
def arrays(shape: str) -> tuple[Array, ...]:
  """Parses the arrays of a shape, or of all members of a tuple.

  Args:
    shape: as HLO writes it, with or without a layout.

  Example:
    >>> arrays("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0:S(1)})")[0].padded_bytes
    4096
  """
  found = []
  for dtype, sizes, order, layout in _ARRAY.findall(shape):
    digits = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype, int(digits[0]) if digits else 0)
    dims = [int(size) for size in sizes.split(",") if size]
    padded = [dims[int(axis)] for axis in order.split(",") if axis]  # minor first
    tile = re.match(r"T\(([\d,]+)\)", layout)
    for i, size in enumerate(reversed(tile[1].split(",")) if tile else ()):
      if i < len(padded):
        padded[i] = -(-padded[i] // int(size)) * int(size)
    space = re.search(r"S\((\d+)\)", layout)
    found.append(
      Array(
        dtype,
        tuple(dims),
        -(-math.prod(dims) * bits // 8),
        -(-math.prod(padded or dims) * bits // 8),
        space is None or space[1] == "0",
      )
    )
  return tuple(found)


@dataclasses.dataclass(frozen=True)
class Operation:
  """One line of a computation.

  Attributes:
    name: unique in its computation.
    shape: of the result, as text; see `arrays`.
    opcode: for example `fusion`.
    operands: names of other operations; the value of a constant.
    attributes: the rest of the line, as text.
    is_root: whether it is its computation's result.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  is_root: bool = False

  def attribute(self, pattern: str) -> str | None:
    """The first group of a regular expression in the attributes; None if absent."""
    match = re.search(pattern, self.attributes)
    return match[1] if match else None

  @property
  def called(self) -> tuple[str, ...]:
    """The computations that it calls, in order."""
    names = _CALLED.findall(self.attributes)
    return tuple(name for group in names for name in re.findall(r"[\w.\-]+", group))

  @property
  def scope(self) -> str:
    """The scope in the source program that it came from."""
    return self.attribute(r'op_name="([^"]*)"') or ""


@dataclasses.dataclass(frozen=True)
class Program:
  """The computations of a compiled program.

  Attributes:
    computations: operations by name, in the order in which they run.
    entry: name of the computation that runs first.
  """

  computations: Mapping[str, Mapping[str, Operation]]
  entry: str

  @classmethod
  def parse(cls, text: str) -> "Program":
    """Parses the text of a module."""
    computations: dict[str, dict[str, Operation]] = {}
    entry, current = "", {}
    for line in text.splitlines():
      if header := _HEADER.match(line):
        current = computations.setdefault(header[2], {})
        entry = header[2] if header[1] else entry
      elif match := _OPERATION.match(_COMMENT.sub("", line)):
        operation = _parse_operation(match[2], match[3], match[1] is not None)
        current[operation.name] = operation
    return cls(computations, entry or next(reversed(computations), ""))

  def root(self, computation: str) -> Operation:
    """The operation whose result is the computation's."""
    operations = self.computations[computation]
    return next(op for op in operations.values() if op.is_root)

  def operands(self, computation: str, operation: Operation) -> Iterator[Operation]:
    """The operations whose results it takes."""
    known = self.computations[computation]
    return (known[name] for name in operation.operands if name in known)


def _parse_operation(name: str, rest: str, is_root: bool) -> Operation:
  end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opening = rest.index("(")
  closing = _closing(rest, opening)
  operands = tuple(
    part.split(" ")[-1].lstrip("%") for part in _split(rest[opening + 1 : closing])
  )
  return Operation(
    name, shape, rest[:opening], operands, rest[closing + 1 :].lstrip(", "), is_root
  )


def _closing(text: str, opening: int) -> int:
  """The index of the bracket that closes the one at `opening`."""
  depth = 0
  for match in re.compile(r"[(){}\[\]]").finditer(text, opening):
    depth += 1 if match[0] in "({[" else -1
    if depth == 0:
      return match.start()
  raise ValueError(f"unbalanced brackets: {text[:200]}")


def _split(text: str) -> Sequence[str]:
  """Splits at the commas outside all brackets."""
  parts, depth, start = [], 0, 0
  for match in re.finditer(r"[(){}\[\],]", text):
    if match[0] != ",":
      depth += 1 if match[0] in "({[" else -1
    elif depth == 0:
      parts.append(text[start : match.start()].strip())
      start = match.end()
  last = text[start:].strip()
  return [*parts, last] if last else parts
