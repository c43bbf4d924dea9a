"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.ccvit import ccvit
from maskjax.objectives.classification import classification
from maskjax.objectives.croco import croco
from maskjax.objectives.crossmae import crossmae
from maskjax.objectives.mae import mae
from maskjax.objectives.mp3 import mp3
from maskjax.objectives.objective import Batch, Objective, Variables

__all__ = [
  "Batch",
  "Objective",
  "Variables",
  "ccvit",
  "classification",
  "croco",
  "crossmae",
  "mae",
  "mp3",
]
