"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.capi import capi
from maskjax.objectives.classification import classification
from maskjax.objectives.dmt_jepa import dmt_jepa
from maskjax.objectives.ijepa import ijepa
from maskjax.objectives.latent_mim import latent_mim
from maskjax.objectives.mae import mae
from maskjax.objectives.objective import Batch, Objective, Variables

__all__ = [
  "Batch",
  "Objective",
  "Variables",
  "capi",
  "classification",
  "dmt_jepa",
  "ijepa",
  "latent_mim",
  "mae",
]
