"""The costs of a compiled program, from the estimates in its text."""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence

from maskjax.planning.hlo import Operation, Program, arrays
from maskjax.planning.loops import Execution, executions

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)

# These take no time of their own: they name memory, or end an operation that began
# before.
_FREE = (
  "after-all",
  "bitcast",
  "call",
  "conditional",
  "constant",
  "domain",
  "get-tuple-element",
  "opt-barrier",
  "parameter",
  "partition-id",
  "replica-id",
  "tuple",
  "while",
)
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "Sharding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
  """The costs of one step on one chip.

  Attributes:
    cycles: the compiler's estimate, summed over all operations and loops.
    hbm_bytes: read from and written to HBM.
    collective_bytes: by kind, of the arrays that collectives work on.
    link_bytes: that leave a chip for the collectives, around rings.
    unpriced: the number of operations without an estimate of cycles, by kind, without
      collectives, whose cost is `collective_bytes`.
    has_loops: whether a loop has more than one iteration.
    inexact_loops: loops whose number of iterations is unknown.
  """

  cycles: int
  hbm_bytes: int
  collective_bytes: Mapping[str, int]
  link_bytes: float
  unpriced: Mapping[str, int]
  has_loops: bool
  inexact_loops: Sequence[str]


def read_costs(program: Program, num_chips: int) -> Costs:
  """Adds up the costs of all operations that a program runs.

  Args:
    program: compiled for TPUs.
    num_chips: that take part in a collective which does not list them.
  """
  found, inexact = executions(program)
  cycles = hbm = 0
  unpriced: collections.Counter[str] = collections.Counter()
  collective: collections.Counter[str] = collections.Counter()
  link = 0.0
  seen: set[str] = set()
  for execution in found:
    operation, times = execution.operation, execution.times
    if kind := collective_kind(operation):
      channel = operation.attribute(r"channel_id=(\d+)") or (
        f"{execution.computation}/{operation.name}"
      )
      if channel not in seen:
        seen.add(channel)
        size = payload(program, execution)
        collective[kind] += times * size
        link += times * size * _ring_share(operation, kind, num_chips)
    if execution.fused or is_free(operation):
      continue
    hbm += times * hbm_bytes(program, execution.computation, operation)
    estimate = estimated_cycles(operation)
    if estimate is not None:
      cycles += times * estimate
    elif not collective_kind(operation):
      unpriced[_name(operation)] += times
  return Costs(
    cycles=cycles,
    hbm_bytes=hbm,
    collective_bytes=dict(sorted(collective.items())),
    link_bytes=link,
    unpriced=dict(sorted(unpriced.items())),
    has_loops=any(execution.times > 1 for execution in found),
    inexact_loops=inexact,
  )


def estimated_cycles(operation: Operation) -> int | None:
  """The compiler's estimate of an operation's cycles; None if it has none."""
  cycles = operation.attribute(r'"estimated_cycles":"(\d+)"')
  return int(cycles) if cycles and cycles != "0" else None


def repaired_seconds(optimal_seconds: float, text: str) -> float:
  """Corrects the compiler's roofline of a program.

  libtpu subtracts a second for each of its `ConcatBitcast` calls, which join arrays
  without work.

  Args:
    optimal_seconds: the compiler's roofline.
    text: of the program.

  Example:
    >>> repaired_seconds(-0.75, 'custom_call_target="ConcatBitcast"')
    0.25
  """
  return optimal_seconds + text.count('custom_call_target="ConcatBitcast"')


def collective_kind(operation: Operation) -> str | None:
  """The kind of a collective; None for its end, and for all other operations."""
  kind = operation.opcode.removesuffix("-start")
  return kind if kind in COLLECTIVES else None


def payload(program: Program, execution: Execution) -> int:
  """The bytes of a collective on a chip: of its inputs or outputs, the larger."""
  taken = program.operands(execution.computation, execution.operation)
  given = arrays(execution.operation.shape)
  if execution.operation.opcode in ("all-gather-start", "collective-permute-start"):
    # The shape of the start holds inputs as well as outputs.
    return max((array.bytes for array in given), default=0)
  return max(
    sum(array.bytes for op in taken for array in arrays(op.shape)),
    sum(array.bytes for array in given),
  )


def _ring_share(operation: Operation, kind: str, num_chips: int) -> float:
  """The bytes that leave a chip for each byte of a collective, around a ring."""
  if kind == "collective-permute":
    return 1.0
  size = num_chips
  if listed := operation.attribute(r"replica_groups=\{\{([\d,]+)\}"):
    size = listed.count(",") + 1
  elif iota := operation.attribute(r"replica_groups=\[\d+,(\d+)\]"):
    size = int(iota)
  return (2 if kind == "all-reduce" else 1) * (size - 1) / size


def is_free(operation: Operation) -> bool:
  """Whether an operation takes no time of its own."""
  if operation.opcode in _FREE or operation.opcode.endswith(("-done", "-update")):
    return True
  if estimated_cycles(operation) is None and all(
    not array.dims for array in arrays(operation.shape)
  ):
    return True  # runs on the scalar unit, beside other operations
  target = operation.attribute(r'custom_call_target="([^"]+)"')
  return operation.opcode == "custom-call" and target in _FREE_CALLS


def _name(operation: Operation) -> str:
  target = operation.attribute(r'custom_call_target="([^"]+)"')
  return f"{operation.opcode} {target}" if target else operation.opcode


def hbm_bytes(program: Program, computation: str, operation: Operation) -> int:
  """The bytes that an operation reads from and writes to HBM.

  Of an array of which only slices are read or written, the slices count.

  Args:
    program: the program.
    computation: name of the one that holds the operation.
    operation: the operation.
  """
  if operation.opcode.endswith("-start"):
    inputs: Sequence[Operation] = ()
  else:
    inputs = list(program.operands(computation, operation))
  written = sum(_in_hbm(operation.shape))
  if operation.opcode != "fusion":
    read = [sum(_in_hbm(op.shape)) for op in inputs]
    if operation.opcode == "dynamic-slice":
      read[0] = written
    elif operation.opcode == "dynamic-update-slice":
      written, read[0] = read[1], 0
    return sum(read) + written
  body = program.computations[operation.called[0]]
  parameters = {
    int(op.operands[0]): op for op in body.values() if op.opcode == "parameter"
  }
  uses = collections.defaultdict(list)
  for op in body.values():
    for at, name in enumerate(op.operands):
      uses[name].append((op, at))
  read_bytes = 0
  for i, given in enumerate(inputs):
    size = sum(_in_hbm(given.shape))
    used = uses[parameters[i].name] if i in parameters else []
    opcodes = {(op.opcode, at) for op, at in used}
    if size and opcodes == {("dynamic-slice", 0)}:
      size = min(size, sum(a.padded_bytes for op, _ in used for a in arrays(op.shape)))
    elif size and opcodes == {("dynamic-update-slice", 0)}:
      # Updated in place: it is not read, and only the slice is written.
      updates = [body[op.operands[1]] for op, _ in used]
      written += sum(a.padded_bytes for op in updates for a in arrays(op.shape)) - size
      size = 0
    read_bytes += size
  return read_bytes + max(0, written)


def _in_hbm(shape: str) -> list[int]:
  return [array.padded_bytes for array in arrays(shape) if array.in_hbm]


def scopes(program: Program) -> dict[str, int]:
  """The cycles of each scope of the source program, largest first.

  The numbers of layers and copies are removed from the names.
  """
  cycles: collections.Counter[str] = collections.Counter()
  for execution in executions(program)[0]:
    estimate = estimated_cycles(execution.operation)
    if not execution.fused and estimate is not None:
      name = re.sub(r"block_\d+", "block", execution.operation.scope)
      cycles[name] += execution.times * estimate
  return dict(cycles.most_common())
