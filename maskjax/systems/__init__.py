"""Systems: one paper a file, found by name in the folders of the families.

`maskjax.systems.mae(...)` makes the objective of MAE from hyperparameters; the file
`maskjax/systems/image/mae.py` is imported then, and not before.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskjax.errors import UserError, did_you_mean
from maskjax.systems.system import System

__all__ = ["System", "families", "find", "names", "records"]


def families() -> dict[str, str]:
  """The family of each system by name; imports none of them."""
  return {name: module.split(".")[-2] for name, module in _modules().items()}


def names() -> tuple[str, ...]:
  """The names of all systems, in alphabetical order; imports none of them."""
  return tuple(_modules())


def find(name: str) -> Callable[..., Any]:
  """Finds the function that makes a system.

  Args:
    name: for example `mae`.

  Raises:
    UserError: no file bears that name; the message gives the nearest name.

  Example:
    >>> find("mae").__module__
    'maskjax.systems.image.mae'
  """
  modules = _modules()
  if name not in modules:
    raise UserError(f"no system {name!r}: {did_you_mean(name, modules)}")
  return getattr(importlib.import_module(modules[name]), name)


def records() -> list[System]:
  """The records of all systems, by family and name."""
  modules = sorted(_modules().values())
  return [importlib.import_module(module).SYSTEM for module in modules]


@functools.cache
def _modules() -> Mapping[str, str]:
  """Modules of systems by name: files, or folders, of the families' folders."""
  return modules_in(Path(__file__).parent, __name__)


def modules_in(root: Path, package: str) -> dict[str, str]:
  """The systems below a folder of families, by name.

  Args:
    root: holds a folder for each family.
    package: what the folder is imported as.

  Raises:
    UserError: two files bear one name.
  """
  found: dict[str, str] = {}
  for place in sorted(root.glob("*/*")):
    is_module = place.suffix == ".py" or (place / "__init__.py").is_file()
    if not is_module or place.name.startswith("_"):
      continue
    name, module = place.stem, f"{package}.{place.parent.name}.{place.stem}"
    if name in found:
      raise UserError(
        f"two systems are called {name!r}: {found[name]} and {module}; expected one"
      )
    found[name] = module
  return dict(sorted(found.items()))


def __getattr__(name: str) -> Any:
  """Finds a system as an attribute, so that it can be imported from here."""
  if name.startswith("_") or name not in _modules():
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return find(name)


def __dir__() -> list[str]:
  return sorted({*__all__, *names()})
