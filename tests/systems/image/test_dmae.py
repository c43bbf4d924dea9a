"""DMAE: MAE, and a teacher's block at the visible patches."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.image import taught

from maskjax.errors import UserError
from maskjax.objectives import Variables
from maskjax.systems import dmae, mae
from maskjax.systems.image import dmae as module

torch = taught.torch
F = torch.nn.functional


def make(**more):
  keywords = {
    "teacher": taught.TEACHER,
    **taught.SHAPE,
    "encoder": taught.STUDENT,
    "decoder": {"width": 8, "depth": 1, "heads": 2},
  }
  return dmae(**{**keywords, **more})


def without_mechanism(monkeypatch):
  """Nothing is learned from the teacher: MAE alone."""
  monkeypatch.setattr(module, "absolute_error", lambda one, other: 0 * one[..., 0])


@pytest.mark.parametrize("depth", [1, 2])
def test_loss_is_that_of_transformers_and_torch(tmp_path, depth):
  objective, batch = make(projector_depth=depth), taught.make_batch()
  variables = taught.make_variables(objective, batch)
  params, encoder = variables.params, objective.teacher.objective.model.encoder
  theirs = variables.extra["teacher"].params["encoder"]
  teacher = taught.Theirs(encoder, theirs, tmp_path / "teacher")
  student = taught.Theirs(
    objective.model.encoder, params["encoder"], tmp_path / "student"
  )
  mask = objective.mask(batch, taught.STEP)
  with torch.no_grad():
    own = student.layers(batch["image"], mask.masked)[0][objective.model.layer - 1]
    own = taught.dense(own, params["projector"]["dense_0"])
    if depth == 2:
      own = taught.dense(F.gelu(own), params["projector"]["dense_1"])
    target = teacher.layers(batch["image"], mask.masked)[0][objective.teacher_layer - 1]
    # `forward_distillation_loss_embedding` of the authors.
    far = F.l1_loss(F.normalize(own, dim=-1), F.normalize(target, dim=-1)).item()
  # Its other half is MAE's, which has a test of its own.
  plain = mae(
    **taught.SHAPE,
    encoder=taught.STUDENT,
    decoder={"width": 8, "depth": 1, "heads": 2},
    norm_pix_loss=False,
  )
  wrong = jax.jit(plain.loss_of_mask)(
    Variables({k: params[k] for k in ("encoder", "decoder")}), batch, mask
  ).value()
  loss = taught.loss_of(objective)(variables, batch, taught.STEP)
  assert abs(loss.metrics["distillation"].value() / far - 1) <= 1e-5
  assert abs(loss.metrics["reconstruction"].value() / wrong - 1) <= 1e-5
  assert abs(loss.value() / (wrong + far) - 1) <= 1e-5
  assert far > 0.01


def test_the_teacher_sees_visible_patches_alone_and_stops_early():
  objective, batch = make(teacher_layer=1), taught.make_batch()
  params, extra = taught.make_variables(objective, batch)
  loss = taught.loss_of(objective)
  before = (
    loss(Variables(params, extra), batch, taught.STEP).metrics["distillation"].sum
  )
  masked = objective.mask(batch, taught.STEP).masked_ids
  image = batch["image"].copy()
  row, column = divmod(int(masked[0, 0]), 4)
  image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 9
  after = loss(Variables(params, extra), {**batch, "image": image}, taught.STEP)
  assert after.metrics["distillation"].sum == before
  # Not a number of its second block, nor of its decoder, reaches the loss.
  spoilt = jax.tree.map(np.copy, extra)
  teacher = spoilt["teacher"].params
  blocks = teacher["encoder"]["transformer"]
  for part in (blocks["block_1"], teacher["decoder"]):
    for leaf in jax.tree.leaves(part):
      leaf[:] = np.nan
  after = loss(Variables(params, spoilt), batch, taught.STEP)
  assert after.metrics["distillation"].sum == before


def test_defaults_are_the_papers():
  """Blocks 9 of 12 and 18 of 24, one dense layer between them."""
  teacher = {"name": "mae", "encoder": "L", "decoder": taught.STUDENT}
  objective = dmae(teacher={"name": "frozen", "objective": teacher})
  assert (objective.model.layer, objective.teacher_layer) == (9, 18)
  assert (objective.model.projector.size, objective.model.projector.depth) == (1024, 1)
  assert objective.masking.num_masked == 147
  assert not objective.target.normalized


def with_mask_tokens():
  objective = mae(**taught.SHAPE, encoder=taught.LARGER)
  encoder = objective.model.encoder.clone(masked_patches="token")
  return dataclasses.replace(objective, model=objective.model.clone(encoder=encoder))


@pytest.mark.parametrize(
  "change, complaint",
  [
    ({"layer": 3}, "layer=3: expected a block from 1 to 2"),
    ({"teacher_layer": 0}, "teacher_layer=0: expected a block from 1 to 2"),
    ({"projector_depth": 0}, "projector_depth=0: expected at least 1"),
    (
      {"teacher": taught.FEATURES_ALONE},
      "Patches has no layers: expected an objective with layers",
    ),
    (
      {
        "teacher": {
          "name": "frozen",
          "objective": {"name": f"{__name__}:with_mask_tokens"},
        }
      },
      "teacher sees 17 tokens where 4 patches are visible",
    ),
  ],
)
def test_bad_hyperparameters_are_refused(change, complaint):
  with pytest.raises(UserError, match=complaint):
    make(**change)
