"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.beit_v2 import beit_v2
from maskjax.objectives.cae import cae
from maskjax.objectives.classification import classification
from maskjax.objectives.mae import mae
from maskjax.objectives.objective import Batch, Objective, Variables
from maskjax.objectives.simmim import simmim
from maskjax.objectives.vqkd import vqkd

__all__ = [
  "Batch",
  "Objective",
  "Variables",
  "beit_v2",
  "cae",
  "classification",
  "mae",
  "simmim",
  "vqkd",
]
