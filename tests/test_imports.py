"""Which modules import which: no circles, and rooms import downwards only."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "maskjax"

# Rooms and single modules, lowest first: each imports from levels below its own.
LEVELS = (
  ("errors", "migrations"),
  ("resolve",),
  ("config", "distributed", "keys", "libtpu", "normalization"),
  ("schedules",),
  ("plots", "recipes", "sharding", "storage"),
  ("metrics",),
  ("data",),
  ("tokens",),
  ("masking",),
  ("models",),
  ("losses", "targets"),
  ("objectives",),
  ("training",),
  ("networks",),
  ("evaluation",),
  ("workdir",),
  ("decoding",),
  ("",),  # the package itself, which imports the rooms
  ("systems",),
  ("convert", "experiment"),
  ("planning", "runs"),
  ("curves",),
  ("catalog",),
  ("main",),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

UPWARDS = {
  ("data", "tokens"): "texts become rows by a vocabulary, which needs no data itself",
}


class Import(NamedTuple):
  """An import of one of our modules; `lazy` ones are inside a function."""

  target: str
  lazy: bool


def module_names() -> dict[str, Path]:
  found = {}
  for path in sorted(PACKAGE.rglob("*.py")):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return found


def statements(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
  """The imports below a node, and whether each is inside a function.

  Those for type checkers alone are none.
  """
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
      continue
    if isinstance(child, ast.Import | ast.ImportFrom):
      yield child, lazy
    is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    yield from statements(child, lazy or is_function)


def imports_of(source: str, modules: Mapping[str, object]) -> set[Import]:
  found = set()
  for statement, lazy in statements(ast.parse(source)):
    if isinstance(statement, ast.Import):
      names = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
      assert not statement.level, "an import relative to its package"
      # `from package import name` imports a module where there is one of that name.
      whole = [f"{statement.module}.{alias.name}" for alias in statement.names]
      names = [name if name in modules else str(statement.module) for name in whole]
    found |= {Import(name, lazy) for name in names if name in modules}
  return found


@functools.cache
def graph() -> dict[str, set[Import]]:
  modules = module_names()
  return {name: imports_of(path.read_text(), modules) for name, path in modules.items()}


def circle(edges: Mapping[str, set[str]]) -> list[str]:
  """The nodes of some circle, the first one twice; none where there is no circle."""
  done: set[str] = set()

  def visit(node: str, path: list[str]) -> list[str]:
    if node in path:
      return [*path[path.index(node) :], node]
    if node in done:
      return []
    for target in sorted(edges[node]):
      if found := visit(target, [*path, node]):
        return found
    done.add(node)
    return []

  return next((found for node in sorted(edges) if (found := visit(node, []))), [])


def room(module: str) -> str:
  """The part of a module's name after the package's."""
  return module.split(".")[1] if "." in module else ""


def test_circles_are_found():
  assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
  assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_imports_are_found():
  modules = {"maskjax": 0, "maskjax.data": 0, "maskjax.data.text": 0}
  source = (
    "import jax\nfrom maskjax.data import text, arrays\ndef f():\n  import maskjax\n"
  )
  assert imports_of(source, modules) == {
    Import("maskjax.data.text", lazy=False),
    Import("maskjax.data", lazy=False),
    Import("maskjax", lazy=True),
  }


@pytest.mark.parametrize("lazy", [False, True])
def test_no_modules_import_each_other(lazy):
  """Neither when they are imported, nor when one's functions are called."""
  edges = {
    name: {found.target for found in imports if lazy or not found.lazy}
    for name, imports in graph().items()
  }
  assert circle(edges) == []


def test_every_room_has_a_level():
  assert {room(name) for name in graph()} == LEVEL_OF.keys()


def test_rooms_import_downwards():
  upwards = {}
  for name, imports in graph().items():
    for target, _ in imports:
      pair = room(name), room(target)
      if pair[0] != pair[1] and LEVEL_OF[pair[1]] >= LEVEL_OF[pair[0]]:
        upwards.setdefault(pair, []).append(f"{name} imports {target}")
  unexpected = {pair: names for pair, names in upwards.items() if pair not in UPWARDS}
  assert not unexpected
  assert upwards.keys() == UPWARDS.keys(), "an exception that is no longer needed"


def test_importing_the_rooms_imports_no_system():
  program = "import sys, maskjax; maskjax.fit, maskjax.objectives; print(*sys.modules)"
  result = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  loaded = set(result.stdout.split())
  systems = {name for name in loaded if name.startswith("maskjax.systems.")}
  assert "maskjax.training" in loaded and not systems
