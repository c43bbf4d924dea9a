"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.classification import classification
from maskjax.objectives.mae import mae
from maskjax.objectives.objective import Batch, Objective, Variables
from maskjax.objectives.simmim import simmim

__all__ = ["Batch", "Objective", "Variables", "classification", "mae", "simmim"]
