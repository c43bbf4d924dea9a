"""Counts the floating-point operations of matrix products, before compiling."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
  """Counts the operations of all matrix products of a function.

  A product of [M, K] and [K, N] has 2 M K N. Loops count with all their iterations.

  Args:
    function: of arrays.
    *arguments: their shapes.

  Example:
    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    >>> matmul_flops(lambda x: x @ x, x)
    128
  """
  return count_matmuls(jax.make_jaxpr(function)(*arguments).jaxpr)


def training_flops(loss: Callable[..., jax.Array], params: Any, *rest: Any) -> int:
  """Counts the operations of a loss and its gradient, without recomputation.

  They are those of the loss and of its derivative along one direction: the gradient
  transposes each product of the derivative into one of the same size.

  Args:
    loss: a function of parameters and further arguments that returns a scalar.
    params: shapes of the parameters.
    *rest: shapes of the further arguments.
  """

  def derivative(params: Any, direction: Any, *rest: Any) -> Any:
    return jax.jvp(lambda params: loss(params, *rest), (params,), (direction,))

  return matmul_flops(derivative, params, params, *rest)


def count_matmuls(jaxpr: core.Jaxpr) -> int:
  """Counts as `matmul_flops` does, in a function that is already traced."""
  total = 0
  for equation in jaxpr.eqns:
    name, parameters = equation.primitive.name, equation.params
    inside = [count_matmuls(inner) for inner in _inner(parameters)]
    taken: list[Any] = [variable.aval for variable in equation.invars]
    given: list[Any] = [variable.aval for variable in equation.outvars]
    if name == "dot_general":
      (contracted, _), _ = parameters["dimension_numbers"]
      depth = math.prod(taken[0].shape[axis] for axis in contracted)
      total += 2 * depth * math.prod(given[0].shape)
    elif name == "conv_general_dilated":
      features = parameters["dimension_numbers"].rhs_spec[0]
      kernel = taken[1].shape
      taps = math.prod(kernel) // kernel[features]
      total += 2 * taps * math.prod(given[0].shape)
    elif name == "scan":
      total += parameters["length"] * sum(inside)
    elif name == "cond":
      total += max(inside)
    else:
      total += sum(inside)
  return total


def _inner(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
  """The jaxprs inside of an operation."""
  for value in parameters.values():
    for one in value if isinstance(value, tuple | list) else (value,):
      if isinstance(one, core.ClosedJaxpr):
        yield one.jaxpr
      elif isinstance(one, core.Jaxpr):
        yield one
