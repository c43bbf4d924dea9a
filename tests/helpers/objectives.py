"""Objectives by their import paths, of which features or codes alone are asked."""

import dataclasses

from maskjax.objectives import Variables
from maskjax.tokens import patchify


@dataclasses.dataclass(frozen=True)
class Patches:
  """Has features, its patches of 2 x 2 pixels, and no layers."""

  def init(self, key, batch):
    return Variables({})

  def features(self, variables, batch):
    return patchify(batch["image"], 2)


@dataclasses.dataclass(frozen=True)
class Signs:
  """Has codes: of each pixel of 4 x 4 whether it is above 0."""

  grid = (4, 4)
  num_codes = 2

  def init(self, key, batch):
    return Variables({}, {"codebook": {}})

  def codes(self, variables, batch):
    return patchify(batch["image"] > 0, 1)[..., 0].astype("int32")


def patches():
  return Patches()


def signs():
  return Signs()
