"""How often a compiled program runs each of its operations."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from maskjax.planning.hlo import Operation, Program


class Linear(NamedTuple):
  """An integer of a loop's body: a variable of the loop plus a constant.

  Attributes:
    variable: index in the loop's tuple; None if it is a constant.
    offset: the constant that is added.
  """

  variable: int | None
  offset: int


class Execution(NamedTuple):
  """An operation and how often a step runs it.

  Attributes:
    operation: the operation.
    computation: name of the computation that holds it.
    times: how often it runs.
    fused: whether it is part of a larger operation, which is listed before it.
  """

  operation: Operation
  computation: str
  times: int
  fused: bool


def executions(program: Program) -> tuple[list[Execution], list[str]]:
  """Lists all operations that a program runs, including those inside fusions.

  Args:
    program: the program.

  Returns:
    The operations, and the names of the loops whose number of iterations is unknown;
    they are counted as one iteration.
  """
  found: list[Execution] = []
  inexact: list[str] = []

  def walk(computation: str, times: int, fused: bool) -> None:
    for operation in program.computations[computation].values():
      found.append(Execution(operation, computation, times, fused))
      iterations, inside = 1, fused
      if operation.opcode == "while":
        counted = trip_count(program, computation, operation)
        if counted is None:
          inexact.append(operation.name)
        iterations = 1 if counted is None else counted
      elif operation.opcode in ("fusion", "custom-call"):
        inside = True
      elif operation.opcode not in _CALLING:
        continue  # reductions and sorts call a function of two numbers
      for name in operation.called:
        walk(name, times * iterations, inside)

  walk(program.entry, 1, False)
  return found, inexact


_CALLING = ("call", "conditional", "async-start", "while")


def trip_count(program: Program, computation: str, loop: Operation) -> int | None:
  """Finds the number of iterations of a loop.

  Loops count from a constant to a constant by constant steps, which need not be 1.

  Args:
    program: the program.
    computation: name of the one that holds the loop.
    loop: the operation, a `while`.

  Returns:
    The number, or None if it is unknown.
  """
  known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
  if known:
    return int(known)
  body = loop.attribute(r"body=%?([\w.\-]+)")
  condition = loop.attribute(r"condition=%?([\w.\-]+)")
  if body is None or condition is None:
    return None
  compared = _compare(program, condition)
  if compared is None:
    return None
  left, right, direction = compared
  if direction in ("GT", "GE"):
    left, right = right, left
    direction = {"GT": "LT", "GE": "LE"}[direction]
  start_of = next(program.operands(computation, loop), None)
  root = program.root(body)
  if start_of is None or direction not in ("LT", "LE", "NE"):
    return None

  def first(value: Linear) -> int | None:
    if value.variable is None:
      return value.offset
    start = _element(program, computation, start_of, value.variable, None)
    if start is None or start.variable is not None:
      return None
    return start.offset + value.offset

  def step(value: Linear) -> int | None:
    if value.variable is None:
      return 0
    after = _element(program, body, root, value.variable, None)
    if after is None or after.variable != value.variable:
      return None
    return after.offset

  numbers = (first(left), first(right), step(left), step(right))
  if any(number is None for number in numbers):
    return None
  low, high, up, down = (number for number in numbers if number is not None)
  stride, distance = up - down, high - low + (direction == "LE")
  if stride <= 0 or (direction == "NE" and distance % stride):
    return None
  return max(0, -(-distance // stride))


def _compare(program: Program, condition: str) -> tuple[Linear, Linear, str] | None:
  """Both sides and the direction of a loop's condition."""
  operation, computation = program.root(condition), condition
  arguments: Sequence[Linear | None] | None = None
  while operation.opcode in ("fusion", "call"):
    arguments = [
      _linear(program, computation, op, arguments)
      for op in program.operands(computation, operation)
    ]
    computation = operation.called[0]
    operation = program.root(computation)
  if operation.opcode != "compare":
    return None
  left, right = (
    _linear(program, computation, op, arguments)
    for op in program.operands(computation, operation)
  )
  direction = operation.attribute(r"direction=(\w+)")
  if left is None or right is None or direction is None:
    return None
  return left, right, direction


def _linear(
  program: Program,
  computation: str,
  operation: Operation,
  arguments: Sequence[Linear | None] | None,
) -> Linear | None:
  """An integer as a loop's variable plus a constant; None if it is not.

  Args:
    program: the program.
    computation: name of the one that holds the operation.
    operation: whose result is the integer.
    arguments: of the computation, if it is part of a larger operation; None in
      the computations of a loop, whose one parameter is its tuple.
  """
  if operation.opcode == "constant":
    number = re.fullmatch(r"-?\d+", operation.operands[0])
    return Linear(None, int(number[0])) if number else None
  if operation.opcode == "parameter" and arguments is not None:
    return arguments[int(operation.operands[0])]
  inputs = list(program.operands(computation, operation))
  if operation.opcode == "get-tuple-element":
    index = int(operation.attribute(r"index=(\d+)") or 0)
    return _element(program, computation, inputs[0], index, arguments)
  values = [_linear(program, computation, op, arguments) for op in inputs]
  if operation.opcode in ("copy", "bitcast", "convert", "reshape"):
    return values[0]
  if operation.opcode in ("fusion", "call"):
    name = operation.called[0]
    return _linear(program, name, program.root(name), values)
  if operation.opcode in ("add", "subtract") and None not in values:
    left, right = (value for value in values if value is not None)
    if operation.opcode == "subtract" and right.variable is None:
      return Linear(left.variable, left.offset - right.offset)
    if operation.opcode == "add" and None in (left.variable, right.variable):
      variable = left.variable if right.variable is None else right.variable
      return Linear(variable, left.offset + right.offset)
  return None


def _element(
  program: Program,
  computation: str,
  operation: Operation,
  index: int,
  arguments: Sequence[Linear | None] | None,
) -> Linear | None:
  """A member of a tuple, see `_linear`."""
  if operation.opcode == "parameter" and arguments is None:
    return Linear(index, 0)
  inputs = list(program.operands(computation, operation))
  if operation.opcode == "tuple":
    return _linear(program, computation, inputs[index], arguments)
  if operation.opcode in ("copy", "bitcast", "opt-barrier"):
    return _element(program, computation, inputs[0], index, arguments)
  if operation.opcode in ("fusion", "call"):
    name = operation.called[0]
    values = [_linear(program, computation, op, arguments) for op in inputs]
    return _element(program, name, program.root(name), index, values)
  return None
