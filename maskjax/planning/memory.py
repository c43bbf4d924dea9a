"""Where the bytes of a chip's memory go."""

import dataclasses
import math
from collections.abc import Mapping
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

  Where the first operation of the backward pass begins, these are the results of
  operations before it that are still to be read. Of several such places (one in
  each computation that holds both passes) the largest counts.
  """
  return max(_held(program, inside) for inside in program.computations.values())


def _held(program: Program, operations: Mapping[str, Operation]) -> int:
  order = list(operations.values())
  backward = next(
    (i for i, op in enumerate(order) if "transpose(" in op.scope), len(order)
  )
  if not any("jvp(" in op.scope for op in order[:backward]):
    return 0
  owners = {op.name: _owner(program, operations, op) for op in order}
  read_later = {
    owners[name] for op in order[backward:] for name in op.operands if name in owners
  }
  held = {owners[op.name] for op in order[:backward]} & read_later
  return sum(
    array.padded_bytes
    for name in held
    for array in arrays(operations[name].shape)
    if array.in_hbm and operations[name].opcode not in ("constant", "parameter")
  )


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
