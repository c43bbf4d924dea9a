"""The interface of objectives, and what several systems share.

The systems themselves are in `maskjax.systems`; here are, besides their shared parts,
the supervised objectives and the encoders that teach.
"""

from maskjax.objectives.abilities import abilities_of
from maskjax.objectives.classification import classification
from maskjax.objectives.objective import Batch, Objective, Step, Variables
from maskjax.objectives.text_finetuning import (
  span_extraction,
  tagging,
  text_classification,
)
from maskjax.objectives.vit import vit

__all__ = [
  "Batch",
  "Objective",
  "Step",
  "Variables",
  "abilities_of",
  "classification",
  "span_extraction",
  "tagging",
  "text_classification",
  "vit",
]
