"""MaskJAX: masked-modeling systems in JAX.

Mask, encode, predict, compare: a system is an objective whose loss is pure, and
one loop trains it on any mesh. Importing this package sets no flags, opens no
files and changes nothing in JAX.
"""

from maskjax import (
  data,
  evaluation,
  keys,
  losses,
  masking,
  models,
  objectives,
  sharding,
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
  "models",
  "objectives",
  "sharding",
  "targets",
  "tokens",
  "training",
]
