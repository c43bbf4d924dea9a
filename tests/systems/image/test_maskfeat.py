"""MaskFeat, and histograms of oriented gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image import hog, in_torch, short_run

from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import maskfeat
from maskjax.targets import Hog, histograms

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KEY = jax.random.key(3)


def without_mechanism(monkeypatch):
  """Pixels are predicted, not histograms: the mean of each cell in all of its bins."""

  def means(images, *, cell_size, orientations):
    batch, height, width, channels = images.shape
    (p, q), shape = cell_size, (batch, height // cell_size[0], width // cell_size[1])
    cut = images.reshape(batch, shape[1], p, shape[2], q, channels)
    mean = cut.mean(axis=(2, 4))[..., None]
    return jnp.broadcast_to(mean, (*shape, channels, orientations))

  monkeypatch.setattr("maskjax.targets.hog.histograms", means)


# Histograms of oriented gradients


def whole_numbers(*shape):
  """Few gray levels: many gradients are 0, and many are exactly up or down."""
  return np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)


@pytest.mark.parametrize("images", [random, whole_numbers])
@pytest.mark.parametrize(
  "cell_size, orientations", [((8, 8), 9), ((2, 4), 6), ((1, 1), 18)]
)
def test_histograms_are_the_papers(images, cell_size, orientations):
  images = images(2, 16, 24, 3)
  ours = histograms(jnp.asarray(images), cell_size=cell_size, orientations=orientations)
  assert ours.dtype == jnp.float32
  assert_close(ours, hog.histograms(images, cell_size, orientations))


def test_histograms_leave_brightness_contrast_and_sign_out():
  images = whole_numbers(2, 8, 8, 1)
  before = histograms(images, cell_size=(4, 4))
  for change in (lambda x: 4 * x + 1, lambda x: -x):
    np.testing.assert_array_equal(before, histograms(change(images), cell_size=(4, 4)))
  np.testing.assert_array_equal(
    np.asarray(histograms(jnp.full((1, 4, 4, 2), 0.3), cell_size=(4, 4))), 0
  )


def test_targets_are_the_cells_of_a_patch():
  images = random(2, 8, 12, 3)
  target = Hog(patch_size=(4, 6), cell_size=(2, 3), channels=3, orientations=5)
  values = target(images)
  assert values.shape == (2, 4, target.size) and target.size == 4 * 3 * 5
  cells = hog.histograms(images, (2, 3), 5)
  for n in range(4):
    row, column = 2 * (n // 2), 2 * (n % 2)
    patch = cells[:, row : row + 2, column : column + 2]
    assert_close(values[:, n], patch.reshape(2, -1))


@pytest.mark.parametrize("bin", range(9))
def test_a_bin_is_drawn_as_a_line_along_its_edges(bin):
  """The brightest pixels lie across the gradients of the bin."""
  angle = (bin + 0.5) * np.pi / 9
  y, x = np.indices((16, 16)) - 7.5
  slope = (x * np.sin(angle) + y * np.cos(angle)).astype(np.float32)[None, ..., None]
  target = Hog(patch_size=(16, 16), cell_size=(16, 16), channels=1)
  values = jnp.zeros((1, 1, 9)).at[0, 0, bin].set(1)
  # Away from the border, a slope has this direction only.
  inner = Hog(patch_size=(4, 4), cell_size=(4, 4), channels=1)(slope)[0, 5]
  assert_close(inner, values[0, 0])
  drawn = np.asarray(target.draw(values, slope))[0, ..., 0] - slope.min()
  assert drawn.min() == 0 and drawn.max() > 0.7 * (slope.max() - slope.min())
  spread = np.array([[(drawn * a * b).sum() for a in (x, y)] for b in (x, y)])
  along = np.linalg.eigh(spread)[1][:, -1]
  assert abs(along @ [np.cos(angle), -np.sin(angle)]) > 0.99


def test_small_cells_are_drawn_larger():
  images = random(2, 8, 12, 3)
  target = Hog(patch_size=(4, 4), cell_size=(2, 2), channels=3)
  values = target(images)
  drawn = np.asarray(target.draw(values, images))
  assert drawn.shape == (2, 4 * 8, 4 * 12, 3)
  assert drawn.min() >= images.min() and drawn.max() <= images.max() + 1e-6
  # The cell in row 1 and column 4 is in patch 2, and in no other place.
  empty = np.asarray(target.draw(values.at[:, 2].set(0), images))
  changed = (drawn != empty).any(axis=(0, 3))
  assert changed[8:16, 32:40].any()
  changed[:16, 32:48] = False
  assert not changed.any()


# MaskFeat: 6 x 12 pixels in 2 x 4 patches of 3 x 3, of which 4 are masked.


def make(**more):
  return maskfeat(
    **{
      "image_size": (6, 12),
      "patch_size": 3,
      "cell_size": (1, 3),
      "orientations": 4,
      "encoder": dict(width=8, depth=2, heads=2),
      "mask": dict(name="blockwise", min_patches=2),
      "norm_epsilon": 1e-3,
      **more,
    }
  )


def make_batch():
  return {"image": random(3, 6, 12, 3), "index": np.arange(3)}


@functools.cache
def ours():
  """The mask, parameters, predictions, loss and gradients."""
  objective, batch = make(), make_batch()
  params = shaken(jax.eval_shape(objective.init, KEY, batch).params)

  @jax.jit
  def run(params):
    mask = objective.mask(batch, Step(KEY))

    def value(params):
      return objective.loss_of_mask(Variables(params), batch, mask).value()

    predictions = objective.apply(Variables(params), objective.patches(batch), mask)
    return mask, predictions, *jax.value_and_grad(value)(params)

  return params, *jax.device_get(run(params))


def theirs(params, images, masked):
  """Predictions of masked patches [B, M, T] by a ViT of transformers."""
  config = transformers.ViTConfig(
    image_size=[6, 12],
    patch_size=3,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    layer_norm_eps=1e-3,
  )
  model = transformers.ViTModel(config, add_pooling_layer=False, use_mask_token=True)
  encoder = params["encoder"]
  positions = torch.cat([torch.zeros(1, 8), encoder["positions"]])
  state = {
    "embeddings.cls_token": encoder["cls"],
    "embeddings.mask_token": encoder["mask_token"][None, None],
    "embeddings.position_embeddings": positions[None],
    **in_torch.convolution(
      "embeddings.patch_embeddings.projection", encoder["embed"], 3, 3
    ),
    **in_torch.blocks("layers", encoder["transformer"]),
    **in_torch.norm("layernorm", encoder["norm"]),
  }
  out = torch.func.functional_call(
    model,
    state,
    (torch.tensor(images).permute(0, 3, 1, 2),),
    {"bool_masked_pos": torch.tensor(masked)},
    strict=True,
  )
  tokens = out.last_hidden_state[:, 1:]
  predictions = tokens @ params["head"]["kernel"] + params["head"]["bias"]
  return predictions[torch.tensor(masked)].reshape(len(masked), -1, 3 * 3 * 4)


def test_predictions_loss_and_gradients_are_those_of_transformers():
  params, mask, predictions, loss, gradients = ours()
  leaves = in_torch.leaves(params)
  images = make_batch()["image"]
  expected = theirs(leaves, images, mask.masked)
  assert_close(predictions, expected.detach())
  # A patch's three cells are rows of pixels, its neighbors' stand beside them.
  cells = hog.histograms(images, (1, 3), 4).reshape(3, 2, 3, 4, -1)
  targets = cells.swapaxes(2, 3).reshape(3, 8, -1)[mask.masked]
  errors = expected.reshape(targets.shape) - torch.tensor(targets)
  their_loss = errors.square().mean()
  their_loss.backward()
  np.testing.assert_allclose(loss, their_loss.item(), rtol=1e-5)
  assert_close(gradients, in_torch.gradients(leaves), 1e-5)


def test_defaults_are_the_papers():
  objective = maskfeat()
  masked = np.asarray(objective.mask({"index": jnp.arange(2)}, Step(KEY)).masked)
  masked = masked.reshape(2, 14, 14)
  assert (masked.sum(axis=(1, 2)) == 78).all()  # 78.4, to the nearest
  assert objective.masking.sampler.keywords == {"min_patches": 15}  # a fifth of them
  # In blocks: of two neighbors most have the same fate. At random it would be 52 %.
  assert (masked[:, 1:] == masked[:, :-1]).mean() > 0.8
  assert objective.model.encoder.masked_patches == "token"
  assert objective.target == Hog(
    patch_size=(16, 16), cell_size=(8, 8), channels=3, orientations=9
  )


def test_its_loss_falls_and_its_features_differ():
  objective = maskfeat(
    image_size=8,
    channels=1,
    patch_size=2,
    cell_size=2,
    encoder=dict(width=16, depth=1, heads=2),
    mask=dict(name="blockwise", min_patches=2),
    initialization="xavier",
  )
  losses, batch, features = short_run.train(objective, num_steps=60, learning_rate=1e-2)
  assert np.mean(losses[-5:]) < 0.5 * losses[0]
  # Of the best single number.
  assert np.mean(losses[-5:]) < 0.9 * hog.histograms(batch["image"], (2, 2), 9).var()
  singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
  assert (singular > 0.1 * singular[0]).sum() > 4


@pytest.mark.parametrize(
  "wrong, message",
  [
    (dict(cell_size=2), r"cell_size=2x2: expected a divisor of patch_size=3x3"),
    (dict(cell_size=0), r"cell_size=0x0: expected a divisor of patch_size=3x3"),
    (dict(orientations=0), r"orientations=0: expected a positive integer"),
    (dict(mask_ratio=1.0), r"mask_ratio=1.0: expected a number between 0 and 1"),
    (dict(positions="lerned"), r"positions='lerned': did you mean 'learned'"),
    (dict(mask="blocks"), r"no 'blocks' in .*: did you mean 'blockwise'"),
  ],
)
def test_what_does_not_fit_is_refused(wrong, message):
  with pytest.raises(UserError, match=message):
    make(**wrong)
