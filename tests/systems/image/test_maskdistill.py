"""MaskDistill: a teacher's features of the whole image, at masked patches."""

import jax
import numpy as np
import pytest
from helpers.image import taught
from helpers.image.digits import held_out, train

from maskjax import masking
from maskjax.errors import UserError
from maskjax.systems import maskdistill
from maskjax.systems.image import maskdistill as module

torch = taught.torch
F = torch.nn.functional


def make(**more):
  keywords = {
    "teacher": taught.TEACHER,
    **taught.SHAPE,
    "encoder": taught.STUDENT,
    "mask": {"name": "blockwise", "min_patches": 2},
    "drop_path": 0.0,
  }
  return maskdistill(**{**keywords, **more})


OBJECTIVE = make(beta=0.5)


@pytest.fixture(name="case", scope="module")
def case_fixture():
  """A batch, variables for it, and the mask under which its loss is taken."""
  batch = taught.make_batch()
  variables = taught.make_variables(OBJECTIVE, batch)
  return batch, variables, OBJECTIVE.mask(batch, taught.STEP)


def predictions(variables, batch, mask):
  return jax.jit(OBJECTIVE.model.apply)(
    {"params": variables.params}, OBJECTIVE.patches(batch), mask
  )


def without_mechanism(monkeypatch):
  """The teacher's features are not normalized before they are compared."""
  monkeypatch.setattr(module, "whitened", lambda features: features)


def test_loss_is_that_of_torch_with_a_teacher_of_transformers(case, tmp_path):
  batch, variables, mask = case
  encoder = OBJECTIVE.teacher.objective.model.encoder
  params = variables.extra["teacher"].params["encoder"]
  theirs = taught.Theirs(encoder, params, tmp_path / "teacher")
  with torch.no_grad():
    features = theirs.features(batch["image"])
    # Layer normalization without parameters: section 3, the operator N.
    targets = F.layer_norm(features, features.shape[-1:], eps=1e-6)
    targets = taught.picked(targets, mask.masked_ids)
    ours = torch.tensor(np.array(predictions(variables, batch, mask)))
    expected = F.smooth_l1_loss(ours, targets, beta=0.5).item()
  loss = taught.loss_of(OBJECTIVE)(variables, batch, taught.STEP)
  assert abs(loss.value() / expected - 1) <= 1e-5


def test_features_before_the_teachers_last_normalization(case, tmp_path):
  batch, variables, mask = case
  objective = make(beta=0.5, last_norm=False)
  assert objective.model.size == taught.LARGER["width"]
  encoder = objective.teacher.objective.model.encoder
  params = variables.extra["teacher"].params["encoder"]
  theirs = taught.Theirs(encoder, params, tmp_path / "teacher")
  with torch.no_grad():
    hidden = theirs.layers(batch["image"])[0][-1][:, 1:]
    targets = F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
    targets = taught.picked(targets, mask.masked_ids)
    ours = torch.tensor(np.array(predictions(variables, batch, mask)))
    expected = F.smooth_l1_loss(ours, targets, beta=0.5).item()
  loss = taught.loss_of(objective)(variables, batch, taught.STEP).value()
  assert abs(loss / expected - 1) <= 1e-5
  other = taught.loss_of(OBJECTIVE)(variables, batch, taught.STEP).value()
  assert abs(loss / other - 1) > 1e-3


def test_the_teacher_sees_what_the_student_does_not(case):
  batch, variables, mask = case
  image = batch["image"].copy()
  row, column = divmod(int(mask.masked_ids[0, 0]), 4)
  image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
  other = {**batch, "image": image}
  before, after = (predictions(variables, b, mask) for b in (batch, other))
  np.testing.assert_array_equal(before, after)
  assert before.shape == (4, OBJECTIVE.masking.num_masked, taught.LARGER["width"])
  losses = [
    taught.loss_of(OBJECTIVE)(variables, b, taught.STEP).value() for b in (batch, other)
  ]
  assert abs(losses[1] / losses[0] - 1) > 1e-3


def test_the_mask_is_blockwise_and_masks_two_fifths(case):
  *_, mask = case
  assert OBJECTIVE.masking.num_masked == 6  # of 6.4
  whole = maskdistill(teacher="ema")
  assert (whole.masking.num_masked, whole.masking.sampler) == (78, masking.blockwise)
  assert whole.model.encoder.masked_patches == "token"
  assert whole.model.encoder.positions == "relative"
  masked = np.asarray(mask.masked).reshape(-1, 4, 4)
  # Of 6 of 16 tokens at random, 24 x 6/16 x 5/15 pairs of neighbors are masked.
  pairs = (masked[:, 1:] & masked[:, :-1]).sum() + (
    masked[:, :, 1:] & masked[:, :, :-1]
  ).sum()
  assert pairs > 1.2 * len(masked) * 24 * (6 / 16) * (5 / 15)


def test_any_features_teach(case):
  batch, *_ = case
  objective = make(teacher=taught.FEATURES_ALONE)
  assert objective.model.size == 4
  variables = taught.make_variables(objective, batch)
  shape = jax.eval_shape(objective.loss, variables, batch, taught.STEP).sum.shape
  assert shape == ()


def test_an_average_of_the_student_teaches(case):
  objective = make(teacher={"name": "ema", "decay": 0.75})
  variables = taught.make_variables(objective, case[0])
  after = objective.update(variables, case[0], taught.STEP, {})
  moved, teacher = after.extra["teacher"], variables.extra["teacher"]
  old, new = teacher["encoder"]["cls"], variables.params["encoder"]["cls"]
  np.testing.assert_allclose(moved["encoder"]["cls"], 0.75 * old + 0.25 * new, 1e-6)
  assert objective.pretrained == {}
  assert make(teacher={**taught.TEACHER, "workdir": "a"}).pretrained == {"teacher": "a"}


def test_losses_fall_and_features_stay_apart():
  objective = make(encoder={"width": 16, "depth": 1, "heads": 2})
  losses, state = train(objective, 40)
  assert losses[-5:].mean() < 0.8 * losses[:5].mean()
  features = jax.jit(objective.features)(jax.device_get(state.variables), held_out())
  taught.assert_no_collapse(features)


@pytest.mark.parametrize(
  "change, complaint",
  [
    ({"beta": 0}, "beta=0: expected a number above 0"),
    (
      {"teacher": taught.FEATURES_ALONE, "last_norm": False},
      "Patches has no layers: expected",
    ),
    ({"teacher": {"name": "emma"}}, "did you mean 'ema'"),
    ({"teacher": {"name": "frozen"}}, "'frozen' is missing its 'objective'"),
    ({"patch_size": 4}, "images of 8x8x1|expected those of 4 patches"),
    ({"drop_path": 1.0}, "drop_path=1.0: expected at least 0 and less than 1"),
  ],
)
def test_bad_hyperparameters_are_refused(change, complaint):
  with pytest.raises(UserError, match=complaint):
    make(**change)
