"""MaskJAX: masked-modeling systems in JAX.

Mask, encode, predict, compare: a system is an objective whose loss is pure, and
one loop trains it on any mesh. Importing this package sets no flags, opens no
files and changes nothing in JAX. It imports no room either: each is imported at its
first use as an attribute, `maskjax.data` for example.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from maskjax import (
    data,
    evaluation,
    keys,
    losses,
    masking,
    metrics,
    models,
    objectives,
    sharding,
    systems,
    targets,
    tokens,
    training,
  )
  from maskjax.errors import RecordError, RunError, UserError
  from maskjax.training import fit

__version__ = "0.1.0"

__all__ = [
  "RecordError",
  "RunError",
  "UserError",
  "data",
  "evaluation",
  "fit",
  "keys",
  "losses",
  "masking",
  "metrics",
  "models",
  "objectives",
  "sharding",
  "systems",
  "targets",
  "tokens",
  "training",
]

# Names that are not modules of this package, by the module that has them.
_ELSEWHERE = {
  "RecordError": "errors",
  "RunError": "errors",
  "UserError": "errors",
  "fit": "training",
}


def __getattr__(name: str) -> Any:
  """Imports a public name at its first use (PEP 562)."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  if name in _ELSEWHERE:
    module = importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}")
    globals()[name] = getattr(module, name)
  else:
    globals()[name] = importlib.import_module(f"{__name__}.{name}")
  return globals()[name]


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
