"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.classification import classification
from maskjax.objectives.dbot import dbot
from maskjax.objectives.dmae import dmae
from maskjax.objectives.mae import mae
from maskjax.objectives.maskalign import maskalign
from maskjax.objectives.maskdistill import maskdistill
from maskjax.objectives.objective import Batch, Objective, Variables
from maskjax.objectives.vit import vit

__all__ = [
  "Batch",
  "Objective",
  "Variables",
  "classification",
  "dbot",
  "dmae",
  "mae",
  "maskalign",
  "maskdistill",
  "vit",
]
