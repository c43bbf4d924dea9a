"""From the name of a part, as a config writes it, to the part itself.

A part is named by a short public name of its room (`"random"` in
`maskjax.masking`) or by import path (`"my_lab.losses:huber"`).
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Unpack, get_args, get_origin, get_type_hints

from maskjax.errors import UserError, did_you_mean
from maskjax.migrations import NAMES


def find(room: ModuleType, name: str) -> Callable[..., Any]:
  """Finds a function by its name in `room.__all__`, or by import path.

  Args:
    room: the module whose public functions may be named without a path. In the room
      `maskjax.objectives` systems are found as well, each imported when it is named.
    name: a public name of the room, or `"module.path:attribute"`.

  Returns:
    The callable that bears the name.

  Raises:
    UserError: nothing bears that name; the message lists the room's names.

  Example:
    >>> from maskjax.masking import samplers
    >>> find(samplers, "random").__name__
    'random'
  """
  if ":" not in name:
    names = [n for n in room.__all__ if inspect.isfunction(getattr(room, n))]
    if room.__name__ == "maskjax.objectives":
      systems = importlib.import_module("maskjax.systems")
      if name in systems.names():
        return systems.find(name)
      # What finds abilities is public there, but no part of a config.
      names = [n for n in names if n != "abilities_of"] + list(systems.names())
    if name not in names:
      if name in NAMES:
        raise UserError(f"no {name!r} in {room.__name__}: it is {NAMES[name]!r} now")
      raise UserError(
        f"no {name!r} in {room.__name__}: {did_you_mean(name, names)}; "
        "or give an import path like 'my_lab.module:name'"
      )
    return getattr(room, name)
  return find_by_path(name)


def find_by_path(path: str) -> Callable[..., Any]:
  """Finds a function by its import path alone.

  Args:
    path: `"module.path:attribute"`.

  Raises:
    UserError: it is no such path, cannot be imported, or is no function.

  Example:
    >>> find_by_path("math:sqrt")(9)
    3.0
  """
  module_name, colon, attribute = path.partition(":")
  if not colon:
    raise UserError(f"{path!r}: expected an import path like 'my_lab.module:name'")
  try:
    part = getattr(importlib.import_module(module_name), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise UserError(f"cannot import {path!r}: {error}") from error
  if not callable(part):
    raise UserError(f"{path!r} is of type {type(part).__name__}: expected a function")
  return part


def build(room: ModuleType, spec: str | Mapping[str, Any], **more: Any) -> Any:
  """Calls the part that `spec` names, with the keywords that `spec` holds.

  Args:
    room: see `find`.
    spec: the part's name, or a mapping of `name` and the part's keywords.
    **more: further keywords, which `spec` may override.

  Raises:
    UserError: no such part, a keyword that it does not take, or one missing.
  """
  part, keywords = _split(room, spec, more)
  for key, parameter in inspect.signature(part).parameters.items():
    named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    if named and parameter.default is parameter.empty and key not in keywords:
      name = spec if isinstance(spec, str) else spec["name"]
      raise UserError(f"{name!r} is missing its {key!r}: expected a value for it")
  return part(**keywords)


def bind(
  room: ModuleType, spec: str | Mapping[str, Any], **more: Any
) -> Callable[..., Any]:
  """Like `build`, but for functions called later: binds the keywords only."""
  part, keywords = _split(room, spec, more)
  return functools.partial(part, **keywords) if keywords else part


def _split(
  room: ModuleType, spec: str | Mapping[str, Any], more: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
  spec = {"name": spec} if isinstance(spec, str) else dict(spec)
  if "name" not in spec:
    raise UserError(f"a part needs a 'name' beside {sorted(spec)}")
  name = spec.pop("name")
  part = find(room, name)
  keywords = {**more, **spec}
  taken = takes(part)
  for key in keywords:
    if taken is not None and key not in taken:
      raise UserError(f"{name!r} takes no {key!r}: {did_you_mean(key, taken)}")
  return part, keywords


def takes(part: Callable[..., Any]) -> set[str] | None:
  """The keywords that a part takes, also by `**more: Unpack[...]`; None if any."""
  taken = set()
  for name, parameter in inspect.signature(part).parameters.items():
    if parameter.kind is not parameter.VAR_KEYWORD:
      taken.add(name)
    elif get_origin(parameter.annotation) is Unpack:
      (typed,) = get_args(parameter.annotation)
      taken |= get_type_hints(typed).keys()
    else:
      return None
  return taken
