"""Objectives whose features need what `extra` holds, by their import paths."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from maskjax import resolve
from maskjax.losses import Loss, Mean
from maskjax.objectives import Variables, teachers


@dataclasses.dataclass
class Counts:
  """Its `extra` counts the steps; before the third, features say nothing."""

  reads_extra = True

  def init(self, key, batch):
    return Variables({"kernel": jnp.ones((2, 2))}, {"steps": jnp.float32(0)})

  def loss(self, params, extra, batch, key):
    return Loss.of(Mean.of(params["kernel"] ** 2))

  def update_extra(self, params, extra, step, sums):
    return {"steps": extra["steps"] + 1}

  def features(self, variables, batch):
    knows = variables.extra["steps"] >= 3
    return jnp.where(knows, batch["image"].reshape(len(batch["image"]), -1), 1.0)

  def reconstruct(self, variables, batch, key):
    return {"original": batch["image"] + 0 * variables.extra["steps"]}


@dataclasses.dataclass
class Pupil:
  """Learns nothing, and keeps a frozen teacher."""

  teacher: Any

  @property
  def pretrained(self):
    return {"teacher": self.teacher.workdir}

  def init(self, key, batch):
    params = {"kernel": jnp.ones((2, 2))}
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, params, extra, batch, key):
    taught = self.teacher.features(lambda *_: None, extra["teacher"], batch)
    spread = Mean.of(jnp.ptp(taught, axis=0))
    return Loss.of(Mean.of(params["kernel"] ** 2), spread=spread)

  def update_extra(self, params, extra, step, sums):
    return extra


def counts():
  return Counts()


def pupil(*, teacher):
  return Pupil(resolve.build(teachers, teacher))
