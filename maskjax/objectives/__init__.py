"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.attmask import attmask
from maskjax.objectives.classification import classification
from maskjax.objectives.colormae import colormae
from maskjax.objectives.hpm import hpm
from maskjax.objectives.mae import mae
from maskjax.objectives.objective import Batch, Objective, Variables

__all__ = [
  "Batch",
  "Objective",
  "Variables",
  "attmask",
  "classification",
  "colormae",
  "hpm",
  "mae",
]
