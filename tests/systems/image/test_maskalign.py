"""MaskAlign: a teacher's hidden states of the visible patches."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.image import taught

from maskjax import config as configs
from maskjax import keys, sharding
from maskjax.errors import UserError
from maskjax.systems import mae, maskalign
from maskjax.systems.image import maskalign as module
from maskjax.systems.image.maskalign import weighted

torch = taught.torch
F = torch.nn.functional


def make(**more):
  keywords = {
    "teacher": taught.TEACHER,
    **taught.SHAPE,
    "encoder": taught.STUDENT,
    "levels": 2,
    "drop_path": 0.0,
  }
  return maskalign(**{**keywords, **more})


def without_mechanism(monkeypatch):
  """Masks are random ones, whatever the teacher attends to."""

  def attentive_mask(self, taught, batch, step):
    return self.mask(batch, step)

  monkeypatch.setattr(module.MaskAlign, "attentive_mask", attentive_mask)


@pytest.mark.parametrize("mask", ["attentive", "random"])
def test_loss_is_that_of_transformers_and_torch(tmp_path, mask):
  """Student and teacher are theirs; the draw of the mask is ours."""
  objective, batch = make(mask=mask), taught.make_batch()
  variables = taught.make_variables(objective, batch)
  params, encoder = variables.params, objective.teacher.objective.model.encoder
  theirs = variables.extra["teacher"].params["encoder"]
  teacher = taught.Theirs(encoder, theirs, tmp_path / "teacher")
  student = taught.Theirs(
    objective.model.encoder, params["encoder"], tmp_path / "student"
  )
  with torch.no_grad():
    targets, attention = teacher.layers(batch["image"])
    attention = attention[:, :, 0, 1:].mean(dim=1)
    if mask == "attentive":
      example_keys = keys.example_keys(keys.named(taught.KEY, "mask"), batch)
      masked = jax.vmap(lambda k, a: weighted(k, a, 12))(
        example_keys, jnp.asarray(attention.numpy())
      )
    else:
      masked = objective.mask(batch, taught.STEP).masked
    outputs, _ = student.layers(batch["image"], masked)
    # W of section 3.3: one row for each aligned block of the teacher.
    weights = torch.tensor(params["weights"])
    loss = 0.0
    for k, target in enumerate(targets[-2:]):
      target = F.layer_norm(target, target.shape[-1:])  # with torch's epsilon, 1e-5
      seen = np.pad(~np.asarray(masked), ((0, 0), (1, 0)), constant_values=True)
      target = target[torch.from_numpy(seen)].reshape(4, -1, target.shape[-1])
      mixed = sum(w * x for w, x in zip(weights[k], outputs, strict=True))
      head = taught.dense(mixed, params[f"head_{k}"])
      loss += F.smooth_l1_loss(head, target).item() / 2
  ours = taught.loss_of(objective)(variables, batch, taught.STEP)
  assert abs(ours.value() / loss - 1) <= 1e-5
  assert ours.weight == 2 * 4 * (1 + 4)


def test_defaults_are_the_papers():
  objective = maskalign(teacher="ema")
  assert objective.attentive
  assert (objective.masking.num_masked, objective.model.levels) == (138, 5)
  assert objective.model.encoder.options.drop_path == 0.1


def test_weights_that_mix_blocks_do_not_decay_in_the_papers_setting():
  no_decay = configs.load("configs/image/maskalign.py:imagenet").optimizer.no_decay
  params = jax.eval_shape(make().init, taught.KEY, taught.make_batch()).params
  paths = [sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(params)]
  kept = {path for path in paths if not re.search(no_decay, path)}
  assert "weights" in set(paths) - kept
  assert {"encoder/cls", "head_0/kernel"} < kept


def test_weights_begin_with_each_block_for_its_like():
  alike = make().model.first_weights(taught.KEY)
  np.testing.assert_allclose(alike, np.eye(2) + 0.01, rtol=1e-6)
  one = make(levels=1).model.first_weights(taught.KEY)
  np.testing.assert_allclose(one, [[0.01, 1.01]], rtol=1e-6)
  deeper = make(encoder={**taught.STUDENT, "depth": 3}, levels=1)
  weights = deeper.model.first_weights(taught.KEY)
  np.testing.assert_allclose(weights, np.full((1, 3), 1 / 3), rtol=1e-6)


def test_masked_pixels_change_the_target_and_nothing_else():
  objective, batch = make(mask="random"), taught.make_batch()
  variables = taught.make_variables(objective, batch)
  mask = objective.mask(batch, taught.STEP)
  image = batch["image"].copy()
  row, column = divmod(int(mask.masked_ids[0, 0]), 4)
  image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
  apply = jax.jit(objective.model.apply)
  outputs = [
    apply({"params": variables.params}, objective.patches({"image": x}), mask)
    for x in (batch["image"], image)
  ]
  np.testing.assert_array_equal(*outputs)
  assert outputs[0].shape == (2, 4, 5, 12)
  losses = [
    taught.loss_of(objective)(variables, {**batch, "image": x}, taught.STEP).sum
    for x in (batch["image"], image)
  ]
  assert abs(losses[1] / losses[0] - 1) > 1e-4


def test_attended_patches_are_seen_more_often():
  weights = jnp.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.0])
  many = jax.random.split(taught.KEY, 4000)
  one = jax.vmap(lambda key: weighted(key, weights, 5))(many)
  assert (one.sum(axis=1) == 5).all()
  # A single draw is as likely as its weight: to three stds.
  np.testing.assert_allclose(
    (~one).mean(axis=0), weights / 10, rtol=0, atol=3 * 0.5 / 4000**0.5
  )
  two = jax.vmap(lambda key: weighted(key, weights, 4))(many)
  both = (~two[:, 2] & ~two[:, 3]).mean()
  expected = 0.3 * 0.4 / 0.7 + 0.4 * 0.3 / 0.6  # one after the other
  assert abs(both - expected) < 3 * 0.5 / 4000**0.5
  assert not (~two[:, 4:]).any()


def without_class_token():
  objective = mae(**taught.SHAPE, encoder=taught.LARGER)
  encoder = objective.model.encoder.clone(class_token=False)
  return dataclasses.replace(objective, model=objective.model.clone(encoder=encoder))


@pytest.mark.parametrize(
  "change, complaint",
  [
    ({"beta": 0.0}, "beta=0.0: expected a number above 0"),
    ({"levels": 3}, "levels=3: expected at least 1, and no more than the teacher's 2"),
    (
      {"teacher": taught.FEATURES_ALONE},
      "Patches has no layers: expected an objective with layers",
    ),
    ({"mask": "rnadom"}, "did you mean 'random'"),
    (
      {
        "teacher": {
          "name": "frozen",
          "objective": {"name": f"{__name__}:without_class_token"},
        }
      },
      "mask='attentive': expected a teacher with a class token",
    ),
  ],
)
def test_bad_hyperparameters_are_refused(change, complaint):
  with pytest.raises(UserError, match=complaint):
    make(**change)
