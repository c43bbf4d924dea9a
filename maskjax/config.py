"""Configs: finding their files, their keys for every run, and comparing them."""

import ast
import contextlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from maskjax.errors import UserError, did_you_mean

# Changing these does not change what is learned, so a run may go on with others.
FREE_KEYS = (
  "checkpoint",
  "compilation_cache",
  "data.num_threads",
  "data.prefetch",
  "eval",
  "log_every",
  "mesh",
  "microbatches",
  "profile",
  "wandb_project",
)

# Keys that configs of older runs do not have, and what they meant by that.
OLDER = {"initialization": "xavier"}


def defaults() -> ConfigDict:
  """The keys that every config has beside its own, with their usual values."""
  config = ConfigDict()
  config.seed = 0
  config.num_steps = 0  # the config sets it
  config.batch_size = 0  # over all devices; the config sets it
  # Rows that count in the first step, and in how many steps it becomes all of them.
  config.batch_warmup = (0, 0)  # none
  config.microbatches = 1  # parts of a batch computed one after the other
  config.ema_decay = 0.0  # of an average of the parameters; 0 keeps none
  config.init_from = ""  # a workdir whose parameters to begin with
  config.objective = ConfigDict()  # `name` and its keywords
  config.optimizer = ConfigDict()  # `name` and its keywords
  config.data = ConfigDict(
    {
      "train": {},  # `name` of a source and its keywords
      "test": {},
      "train_transforms": (),  # each a name, or `name` and keywords
      "test_transforms": (),
      "on_bad_record": "raise",
      "num_threads": 2,
      "prefetch": 2,
    }
  )
  # Devices: -1 takes all that the other axes leave.
  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.log_every = 50
  config.checkpoint = ConfigDict({"every": 500, "keep": 2})
  config.eval = ConfigDict(
    {
      "every": 0,
      "batch_size": 256,
      "probes": ("knn", "linear"),
      "pictures": 8,
      "network": "",  # `student`, `averaged` or `teacher`, see maskjax/networks.py
    }
  )
  config.profile = (0, 0)  # first and last step of a profile in the workdir
  config.compilation_cache = ""  # a folder that spares compiling again
  config.wandb_project = ""
  return config


def find_file(path: str) -> Path:
  """Finds a config file, here or among those that come with MaskJAX.

  Args:
    path: of a file, or of one of MaskJAX's own (`configs/image/mae.py`), which
      are found from any folder.

  Raises:
    UserError: no such file.
  """
  package = Path(__file__).parent
  inside = Path(*Path(path).parts[1:]) if Path(path).parts[:1] == ("configs",) else ""
  # Own configs lie in the package when it is installed, beside it in a checkout.
  candidates = [Path(path)]
  candidates += [package / "configs" / inside, package.parent / "configs" / inside]
  for file in candidates:
    if file.is_file():
      return file.absolute()
  own = sorted(
    str(Path("configs") / file.relative_to(root))
    for root in (package / "configs", package.parent / "configs")
    for file in root.rglob("*.py")
  )
  raise UserError(f"no config file {path!r}: {did_you_mean(path, own)}")


def load(spec: str) -> ConfigDict:
  """Loads `FILE` or `FILE:NAME`.

  A file's settings are its public functions without required parameters that give a
  `ConfigDict`; the first is taken where none is named. A file may have a `get_config`
  in place of settings, which is given what follows the colon.

  Args:
    spec: see `find_file` for the file.

  Raises:
    UserError: no such file, no such setting, or none that gives a complete config.

  Example:
    >>> load("configs/image/mae.py:digits").objective.name
    'mae'
  """
  path, _, name = spec.partition(":")
  file = find_file(path)
  with _complaints(path):
    module = _module(file)
    if hasattr(module, "get_config"):
      arguments = (name,) if name else ()
      signature = inspect.signature(module.get_config)
      if name and not signature.parameters:
        raise UserError(
          f"get_config takes no setting: expected no ':{name}' after the file"
        )
      signature.bind(*arguments)
      return complete(module.get_config(*arguments))
    functions = _functions(module)
    if not name:
      made = (make() for make in functions.values())
      first = next((config for config in made if isinstance(config, ConfigDict)), None)
      if first is None:
        raise UserError(_NO_SETTING)
      return complete(first)
    if name not in functions:
      raise UserError(
        f"no setting {name!r}: {did_you_mean(name, _settings(functions))}"
      )
    return complete(functions[name]())


def settings(path: str) -> list[str]:
  """The names of a config file's settings, in the order of the file.

  Args:
    path: see `find_file`.

  Returns:
    The names; none of a file with a `get_config`, which takes what it likes.

  Raises:
    UserError: no such file, or no setting in it; or it cannot be run.

  Example:
    >>> settings("configs/text/structformer.py")
    ['small', 'paper', 'middle']
  """
  file = find_file(path)
  with _complaints(path):
    module = _module(file)
    if hasattr(module, "get_config"):
      return []
    return _settings(_functions(module))


_NO_SETTING = (
  "no setting: expected a public function without required parameters that gives a "
  "ConfigDict, or a get_config"
)


@contextlib.contextmanager
def _complaints(path: str) -> Iterator[None]:
  """Turns what goes wrong in a config file into one line that names it."""
  try:
    yield
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  except Exception as error:
    raise UserError(f"{path}: {type(error).__name__}: {error}") from error


def _module(file: Path) -> ModuleType:
  """Runs a config file."""
  loader = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
  if loader is None or loader.loader is None:
    raise UserError("expected a Python file")
  module = importlib.util.module_from_spec(loader)
  loader.loader.exec_module(module)
  return module


def _functions(module: ModuleType) -> dict[str, Callable[[], Any]]:
  """What may be settings of a file: its functions that can be called with nothing.

  Raises:
    UserError: two functions bear one name, of which Python knows the second alone.
  """
  found: dict[str, Callable[[], Any]] = {}
  lines: dict[str, int] = {}
  # Read from the text, since a module does not know which names it defines itself.
  for node in ast.parse(Path(str(module.__file__)).read_text()).body:
    if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
      continue
    if node.name in lines:
      raise UserError(
        f"two functions are called {node.name!r}, in lines {lines[node.name]} and "
        f"{node.lineno}: expected one name a setting"
      )
    lines[node.name] = node.lineno
    function = getattr(module, node.name, None)
    if callable(function) and not _required(function):
      found[node.name] = function
  return found


def _required(function: Callable[..., Any]) -> bool:
  """Whether a function has a parameter without a default."""
  variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
  return any(
    parameter.default is parameter.empty and parameter.kind not in variadic
    for parameter in inspect.signature(function).parameters.values()
  )


def _settings(functions: Mapping[str, Callable[[], Any]]) -> list[str]:
  """The names of the functions that give a config.

  Raises:
    UserError: none does.
  """
  names = [name for name, make in functions.items() if isinstance(make(), ConfigDict)]
  if not names:
    raise UserError(_NO_SETTING)
  return names


def complete(config: Any) -> ConfigDict:
  """Gives a config back if it has the keys that every config has.

  Raises:
    UserError: it is no config, or lacks a key; names it.
  """
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"a config is of type {type(config).__name__}: expected a ConfigDict"
    )
  missing = [key for key in defaults() if key not in config]
  if missing:
    raise UserError(
      f"a config lacks {', '.join(missing)}: expected one that begins with "
      "maskjax.config.defaults()"
    )
  return config


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
  """The values of a config by their full keys.

  Example:
    >>> flat(ConfigDict({"a": {"b": 1}, "c": (2,)}))
    {'a.b': 1, 'c': (2,)}
  """
  values: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      values.update({f"{key}.{rest}": v for rest, v in flat(value).items()})
    else:
      values[key] = value
  return values


def plain(config: ConfigDict) -> dict[str, Any]:
  """The config as JSON knows it: dicts, lists, strings, numbers.

  Raises:
    UserError: a value that JSON does not know.
  """
  try:
    return json.loads(config.to_json())
  except TypeError as error:
    raise UserError(f"a config holds what JSON cannot: {error}") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """The keys in which a run's config differs from another one, less free ones.

  Args:
    old: a config as `plain` gives it.
    new: another.

  Returns:
    Texts like `optimizer.learning_rate: 0.1, now 0.2`.
  """
  old, new = flat(old), flat(new)
  for one, other in ((old, new), (new, old)):
    for key, value in other.items():
      if OLDER.get(key.rpartition(".")[2]) == value:
        one.setdefault(key, value)
  return [
    f"{key}: {old.get(key)!r}, now {new.get(key)!r}"
    for key in sorted({**old, **new})
    if old.get(key) != new.get(key)
    and not any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)
  ]
