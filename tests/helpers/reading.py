"""Objectives whose features need what `extra` holds, by their import paths."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from maskjax.losses import Loss, Mean
from maskjax.objectives import Variables, teachers


@dataclasses.dataclass
class Counts:
  """Its `extra` counts the steps; before the third, features are all the same."""

  def init(self, key, batch):
    return Variables({"kernel": jnp.ones((2, 2))}, {"steps": jnp.float32(0)})

  def loss(self, variables, batch, step):
    return Loss.of(Mean.of(variables.params["kernel"] ** 2))

  def update(self, variables, batch, step, sums):
    return variables._replace(extra={"steps": variables.extra["steps"] + 1})

  def features(self, variables, batch):
    knows = variables.extra["steps"] >= 3
    return jnp.where(knows, batch["image"].reshape(len(batch["image"]), -1), 1.0)

  def reconstruct(self, variables, batch, step):
    return {"original": batch["image"] + 0 * variables.extra["steps"]}


@dataclasses.dataclass
class Pupil:
  """Learns nothing, and keeps a frozen teacher."""

  teacher: Any

  @property
  def pretrained(self):
    return self.teacher.pretrained

  def init(self, key, batch):
    params = {"kernel": jnp.ones((2, 2))}
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, variables, batch, step):
    params, extra = variables
    taught = self.teacher.features(lambda *_: None, extra["teacher"], batch)
    spread = Mean.of(jnp.ptp(taught, axis=0))
    return Loss.of(Mean.of(params["kernel"] ** 2), spread=spread)


def counts():
  return Counts()


def pupil(*, teacher):
  return Pupil(teachers.build(teacher))
