"""Where the bytes of a chip's memory go."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from maskjax.planning.hlo import Operation, Program, arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
  """The bytes of one chip's memory, by what they hold.

  Attributes:
    parameters: what the optimizer changes.
    optimizer: its own state.
    other: the average of the parameters, the objective's own arrays, the batch.
    activations: what the forward pass leaves for the backward pass, where the
      compiled program lets it be told; else None, and `temporaries` holds it too.
    temporaries: gradients, and whatever else lives during a step.
    available: that the compiler may use.
  """

  parameters: int
  optimizer: int
  other: int
  activations: int | None
  temporaries: int
  available: int

  @property
  def parts(self) -> dict[str, int]:
    """The bytes by part."""
    names = ("parameters", "optimizer", "other", "activations", "temporaries")
    values = {name: getattr(self, name) for name in names}
    if self.activations is None:
      del values["activations"]
      values["activations and temporaries"] = values.pop("temporaries")
    return values

  @property
  def total(self) -> int:
    return sum(self.parts.values())

  @property
  def largest(self) -> str:
    """The name of the largest part."""
    return max(self.parts, key=lambda name: self.parts[name])


def shard_bytes(tree: Any) -> int:
  """The bytes on one chip of arrays with shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def activation_bytes(program: Program) -> int:
  """What the forward pass leaves in memory for the backward pass, in bytes.

  The most that results of forward operations take at one time which backward
  operations still read. Of several computations that hold both passes (one in a loop
  over microbatches, say) the largest counts.
  """
  return max(_most_held(program, inside) for inside in program.computations.values())


def _most_held(program: Program, operations: Mapping[str, Operation]) -> int:
  last_read: dict[str, int] = {}
  for place, operation in enumerate(operations.values()):
    if "transpose(" in operation.scope:
      for source in _sources(operations, operation):
        last_read[_owner(program, operations, source)] = place
  held = most = 0
  freed: collections.Counter[int] = collections.Counter()
  for place, (name, operation) in enumerate(operations.items()):
    scope = _scope(operations, operation)
    if name in last_read and "jvp(" in scope and "transpose(" not in scope:
      if operation.opcode not in ("constant", "parameter"):
        size = sum(a.padded_bytes for a in arrays(operation.shape) if a.in_hbm)
        held += size
        freed[last_read[name]] += size
    most = max(most, held)
    held -= freed.pop(place, 0)
  return most


def _sources(
  operations: Mapping[str, Operation], operation: Operation
) -> Iterator[Operation]:
  """What an operation reads, the members of tuples one by one."""
  for name in operation.operands:
    if name in operations and operations[name].opcode == "tuple":
      yield from _sources(operations, operations[name])
    elif name in operations:
      yield operations[name]


def _scope(operations: Mapping[str, Operation], operation: Operation) -> str:
  """An operation's place in the source; of mere copies that of what they copy."""
  while not operation.scope and operation.operands:
    source = operations.get(operation.operands[0])
    if source is None:
      break
    operation = source
  return operation.scope


def _owner(
  program: Program, operations: Mapping[str, Operation], operation: Operation
) -> str:
  """The operation that made an array which this one may merely be a view of."""
  while operation.operands and operation.operands[0] in operations:
    source = operations[operation.operands[0]]
    if operation.opcode == "bitcast":
      operation = source
    elif operation.opcode != "get-tuple-element":
      break
    elif source.opcode == "parameter":
      return source.name
    elif source.opcode == "tuple":
      operation = operations[source.operands[_index(operation)]]
    elif source.opcode == "while" and _unchanged(program, source, _index(operation)):
      start = operations[source.operands[0]]
      if start.opcode != "tuple":
        break
      operation = operations[start.operands[_index(operation)]]
    else:
      break
  return operation.name


def _index(operation: Operation) -> int:
  return int(operation.attribute(r"index=(\d+)") or 0)


def _unchanged(program: Program, loop: Operation, index: int) -> bool:
  """Whether a loop gives a member of its tuple back as it got it."""
  body = loop.attribute(r"body=%?([\w.\-]+)") or ""
  root = program.root(body)
  if root.opcode != "tuple":
    return False
  member = program.computations[body][root.operands[index]]
  source = next(program.operands(body, member), None)
  return (
    member.opcode == "get-tuple-element"
    and _index(member) == index
    and source is not None
    and source.opcode == "parameter"
  )
