"""The memory of a chip by what it holds."""

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
    parameters: of the model.
    optimizer: the optimizer's state.
    other: the average of the parameters, the objective's `extra`, the batch.
    activations: results of the forward pass that the backward pass reads; None if
      there is no compiled program to find them in, and `temporaries` includes them.
    temporaries: gradients, and all other arrays that live during a step only.
    available: that the compiler can use.
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
  """The bytes on one chip of arrays with shardings.

  Args:
    tree: arrays, or their shapes, with a sharding each.
  """
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def activation_bytes(program: Program) -> int:
  """The bytes that the forward pass keeps for the backward pass.

  They are the most, at one time, of results of forward operations that backward
  operations have yet to read. If several computations hold both passes (for example one
  in a loop over microbatches), the largest counts.

  Args:
    program: compiled for TPUs.
  """
  return max(_most_held(program, inside) for inside in program.computations.values())


def _most_held(program: Program, operations: Mapping[str, Operation]) -> int:
  last_read: dict[str, int] = {}
  for i, operation in enumerate(operations.values()):
    if "transpose(" in operation.scope:
      for source in _sources(operations, operation):
        last_read[_owner(program, operations, source)] = i
  held = most = 0
  freed: collections.Counter[int] = collections.Counter()
  for i, (name, operation) in enumerate(operations.items()):
    scope = _scope(operations, operation)
    if name in last_read and "jvp(" in scope and "transpose(" not in scope:
      if operation.opcode not in ("constant", "parameter"):
        size = sum(a.padded_bytes for a in arrays(operation.shape) if a.in_hbm)
        held += size
        freed[last_read[name]] += size
    most = max(most, held)
    held -= freed.pop(i, 0)
  return most


def _sources(
  operations: Mapping[str, Operation], operation: Operation
) -> Iterator[Operation]:
  """The operands of an operation, with the members of tuples one by one."""
  for name in operation.operands:
    if name in operations and operations[name].opcode == "tuple":
      yield from _sources(operations, operations[name])
    elif name in operations:
      yield operations[name]


def _scope(operations: Mapping[str, Operation], operation: Operation) -> str:
  """The scope of an operation; that of a copy is that of its operand."""
  while not operation.scope and operation.operands:
    source = operations.get(operation.operands[0])
    if source is None:
      break
    operation = source
  return operation.scope


def _owner(
  program: Program, operations: Mapping[str, Operation], operation: Operation
) -> str:
  """The operation that computed an array of which this one may be a view."""
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
  """Whether a loop returns a member of its tuple unchanged."""
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
