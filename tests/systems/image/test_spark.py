"""SparK: its decoder against torch, its loss and its blindness by hand."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image import digits

from maskjax.errors import UserError
from maskjax.models import ConvEncoder
from maskjax.objectives import Step, Variables
from maskjax.systems import spark
from maskjax.systems.image.spark import LightDecoder

torch = pytest.importorskip("torch")

RESNET = {
  "name": "resnet",
  "widths": (6, 8),
  "depths": (1, 1),
  "bottleneck": False,
  "stem_stride": 1,
  "stem_width": 6,
}
CONVNEXT = {"name": "convnext", "widths": (6, 8), "depths": (1, 1), "stem_stride": 1}
ENCODERS = {"resnet": RESNET, "convnext": CONVNEXT}
KEY = jax.random.key(7)
STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """Masked units are gray to an ordinary network: no sparse layers."""
  sparse = ConvEncoder.stages

  def stages(self, patches, masked=None):
    if masked is not None:
      patches = jnp.where(masked[..., None], 0, patches)
    return sparse(self, patches)

  monkeypatch.setattr(ConvEncoder, "stages", stages)


def make(encoder="resnet", **more):
  """Images of 4 x 6 pixels in units of 2 x 2, of which 4 of 6 are masked."""
  tiny = {"image_size": (4, 6), "mask_ratio": 0.6, "decoder_width": 8}
  return spark(**{**tiny, "encoder": ENCODERS[encoder], **more})


def make_batch():
  return {
    "image": random(4, 4, 6, 3),
    "index": np.arange(4),
    "valid": np.array([True, True, True, False]),
  }


@functools.cache
def compiled(encoder="resnet"):
  """A SparK with random variables, and all that it computes of a batch."""
  objective = make(encoder)
  made = jax.eval_shape(objective.init, KEY, make_batch())
  variables = Variables(
    shaken(made.params),
    jax.tree.map(lambda x: 0.5 + np.abs(random(*x.shape)), made.extra),
  )

  @jax.jit
  def run(variables, batch):
    mask = objective.mask(batch, STEP)
    loss = objective.loss(variables, batch, STEP)
    return {
      "masked": mask.masked,
      "predicted": objective.apply(variables, objective.patches(batch), mask),
      "loss": loss,
      "evaluated": objective.evaluate(variables, batch, STEP),
      "updated": objective.update(variables, batch, STEP, loss.sums).extra,
      "images": objective.reconstruct(variables, batch, STEP),
      "features": objective.features(variables, batch),
    }

  def all_of(batch, variables=variables):
    return SimpleNamespace(**jax.device_get(run(variables, batch)))

  return variables, all_of


def pixels_of(n):
  row, column = divmod(n, 3)
  return slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)


def paint(batch, where, change):
  """Changes the pixels of the units that `where` names."""
  image = batch["image"].copy()
  for b, n in np.argwhere(where):
    image[b][pixels_of(n)] = change(image[b][pixels_of(n)])
  return {**batch, "image": image}


# The decoder


def tensor(array):
  return torch.from_numpy(np.array(array))


def torch_decoder(params, features):
  """Section 3.2: upsampling and two convolutions a block, channels halved."""
  functional = torch.nn.functional

  def kernel(name):
    return tensor(params[name]["kernel"].transpose(3, 2, 0, 1))

  def norm(x, name):
    own = (tensor(params[name][key]) for key in ("scale", "bias"))
    return functional.batch_norm(x, None, None, *own, training=True)

  features = [tensor(x).movedim(-1, 1) for x in features]
  x = features[0]
  for i in range(sum(name.startswith("double_") for name in params)):
    # Theirs are the transposes of convolutions, whose kernels they turn around.
    double = tensor(
      params[f"double_{i}"]["kernel"][::-1, ::-1].transpose(2, 3, 0, 1).copy()
    )
    bias = tensor(params[f"double_{i}"]["bias"])
    x = functional.conv_transpose2d(x, double, bias, stride=2, padding=1)
    x = functional.conv2d(x, kernel(f"conv_{i}_0"), padding=1)
    x = functional.relu6(norm(x, f"norm_{i}_0"))
    x = norm(functional.conv2d(x, kernel(f"conv_{i}_1"), padding=1), f"norm_{i}_1")
    x = x + features[i + 1] if i + 1 < len(features) else x
  x = functional.conv2d(x, kernel("head"), tensor(params["head"]["bias"]))
  return x.movedim(1, -1)


def test_decoder_is_torchs():
  decoder = LightDecoder(width=16, doublings=3, channels=3)
  features = [random(2, 2, 3, 16), random(2, 4, 6, 8)]
  made = jax.eval_shape(decoder.init, jax.random.key(0), features)
  params = shaken(made["params"])
  train = jax.jit(functools.partial(decoder.apply, mutable=["moments"]))
  found, _ = train({"params": params}, features)
  assert found.shape == (2, 16, 24, 3)
  assert_close(found, torch_decoder(params, features).numpy())


# The objective


def torch_convolution(x, params, stride=1):
  """[B, C, H, W], padded so that a stride of 1 keeps its size."""
  kernel = tensor(params["kernel"].transpose(3, 2, 0, 1))
  bias = tensor(params["bias"]) if "bias" in params else None
  padding = kernel.shape[-1] // 2
  return torch.nn.functional.conv2d(x, kernel, bias, stride=stride, padding=padding)


def visible(masked, x):
  """Of masks [B, rows, columns], where features [B, C, H, W] are visible."""
  for axis in (1, 2):
    masked = masked.repeat_interleave(x.shape[1 + axis] // masked.shape[axis], axis)
  return ~masked


def torch_norm(x, params, masked):
  """Normalizes the visible positions alone, and leaves 0 elsewhere."""
  where, own = visible(masked, x), (tensor(params[k]) for k in ("scale", "bias"))
  rows = x.movedim(1, -1)[where]
  rows = torch.nn.functional.batch_norm(rows, None, None, *own, training=True)
  out = torch.zeros_like(x.movedim(1, -1))
  out[where] = rows
  return out.movedim(-1, 1)


def torch_predictions(params, images, masked):
  """Section 3 with `RESNET`: each layer sets to 0 what is masked: [B, 4, 6, 3]."""
  network = params["encoder"]["network"]

  def layer(x, own, name, stride=1):
    y = torch_convolution(x, own[name], stride)
    return torch_norm(y, own[f"{name}_norm"], masked)

  x = tensor(images).movedim(-1, 1)
  x = layer(x * visible(masked, x)[:, None], network, "stem").relu()
  stages = []
  for stage, stride in ((0, 1), (1, 2)):
    own = network[f"stage_{stage}_block_0"]
    y = layer(layer(x, own, "conv_0", stride).relu(), own, "conv_1")
    x = (y + (layer(x, own, "shortcut", stride) if stage else x)).relu()
    stages.append(x)
  dense = []
  for i, x in enumerate(reversed(stages)):
    x = torch_norm(x, params[f"norm_{i}"], masked)
    embedding = tensor(params[f"embedding_{i}"])[:, None, None]
    x = torch.where(visible(masked, x)[:, None], x, embedding)
    x = torch_convolution(x, params["project_1"]) if i else x
    dense.append(x.movedim(1, -1).numpy())
  return torch_decoder(params["decoder"], dense)


def test_the_loss_is_that_of_sparse_layers_in_torch():
  """Whatever a layer writes at masked positions, the next one does not read."""
  (variables, run), batch = compiled(), make_batch()
  out = run(batch)
  masked = tensor(out.masked).reshape(4, 2, 3)
  predicted = torch_predictions(variables.params, batch["image"], masked).numpy()
  errors = []
  for b in range(3):
    for n in np.flatnonzero(out.masked[b]):
      target, drawn = (x[b][pixels_of(n)].ravel() for x in (batch["image"], predicted))
      target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
      errors.append(((drawn - target) ** 2).mean())
  np.testing.assert_allclose(out.loss.value(), np.mean(errors), rtol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_loss_by_hand(encoder):
  """Normalized pixels of masked units; in evaluation, by running averages."""
  (_, run), batch = compiled(encoder), make_batch()
  out = run(batch)
  assert out.masked.sum(axis=1).tolist() == [4] * 4
  errors = []
  for b in range(3):
    for k, n in enumerate(np.flatnonzero(out.masked[b])):
      target = batch["image"][b][pixels_of(n)].ravel().astype(np.float64)
      target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
      errors.append(((out.predicted[b, k] - target) ** 2).mean())
  assert out.evaluated.weight == out.loss.weight == 12
  np.testing.assert_allclose(out.evaluated.value(), np.mean(errors), rtol=1e-5)
  assert abs(out.loss.value() / out.evaluated.value() - 1) > 1e-3
  assert out.features.shape == (4, 6, 8)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_layer_sees_what_is_masked(encoder):
  """Neither through a convolution nor through the statistics of the batch."""
  (_, run), batch = compiled(encoder), make_batch()
  before = run(batch)
  blind = run(paint(batch, before.masked, lambda x: 100 * x[::-1] - 5))
  np.testing.assert_array_equal(blind.predicted, before.predicted)
  for a, b in zip(
    jax.tree.leaves(blind.loss.sums), jax.tree.leaves(before.loss.sums), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  assert abs(blind.loss.sum / before.loss.sum - 1) > 1e-3  # its targets do
  seen = run(paint(batch, ~before.masked, np.flip))
  assert np.abs(seen.predicted - before.predicted).max() > 1e-2


@pytest.mark.parametrize("encoder", ENCODERS)
def test_each_scale_has_an_embedding_at_its_masked_positions(encoder):
  """The decoder is given the features of every scale, and nothing of masked ones."""
  (variables, run), batch = compiled(encoder), make_batch()
  before = run(batch)
  for i, width in enumerate((8, 6)):
    name = f"embedding_{i}"
    assert variables.params[name].shape == (width,)
    changed = {**variables.params, name: variables.params[name] + 1}
    after = run(batch, Variables(changed, variables.extra))
    assert np.abs(after.predicted - before.predicted).max() > 1e-3
  # The lateral of the larger scale, which a decoder of one scale would not have.
  cut = jax.tree.map(np.zeros_like, variables.params["project_1"])
  after = run(batch, Variables({**variables.params, "project_1": cut}, variables.extra))
  assert np.abs(after.predicted - before.predicted).max() > 1e-3


def test_running_averages_follow_the_visible_positions():
  (variables, run), batch = compiled(), make_batch()
  out = run(batch)
  sums = out.loss.sums["moments"]["encoder"]["network"]["stem_norm"]
  # 2 of 6 units are visible, of 4 pixels each, in 4 examples.
  assert sums["count"] == 4 * 2 * 4
  old, new = (
    extra["statistics"]["encoder"]["network"]["stem_norm"]["mean"]
    for extra in (variables.extra, out.updated)
  )
  np.testing.assert_allclose(new, 0.9 * old + 0.1 * sums["sum"] / 32, rtol=1e-5)


def test_reconstructions_show_visible_units_as_they_are():
  (_, run), batch = compiled(), make_batch()
  out = run(batch)
  assert set(out.images) == {"original", "masked", "reconstructed"}
  for b in range(4):
    masked = np.flatnonzero(out.masked[b]).tolist()
    for n in range(6):
      true, drawn = (
        out.images[name][b][pixels_of(n)].ravel()
        for name in ("original", "reconstructed")
      )
      expected = true
      if n in masked:
        predicted = out.predicted[b, masked.index(n)]
        expected = predicted * np.sqrt(true.var(ddof=1) + 1e-6) + true.mean()
      np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_units_may_be_wider_than_the_stride():
  objective = make(image_size=(8, 12), patch_size=4)
  assert objective.patches.grid == (2, 3) and objective.model.decoder.doublings == 1
  batch = objective.batch_shapes(2)
  made = jax.eval_shape(objective.init, KEY, batch)
  loss = jax.eval_shape(objective.loss, made, batch, STEP)
  assert loss.sum.shape == ()


# Training


def test_losses_fall_and_features_differ():
  objective = spark(
    image_size=8, channels=1, encoder=RESNET, decoder_width=8, norm_pix_loss=False
  )
  losses, state = digits.train(objective, 30)
  assert losses[-5:].mean() < 0.6 * losses[:5].mean()
  features = jax.jit(objective.features)(state.variables, digits.held_out(64))
  means = np.asarray(features).mean(axis=1)
  spectrum = np.linalg.svd(means - means.mean(axis=0), compute_uv=False)
  assert (spectrum > 0.01 * spectrum[0]).sum() >= 4


# Mistakes


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"encoder": "resnet5"}, "no convolutional encoder 'resnet5'"),
    ({"patch_size": 1}, "patch_size=1: expected a multiple of 2, the encoder's stride"),
    ({"decoder_width": 7}, "decoder_width=7: expected a multiple of 2"),
    ({"decoder_width": 0}, "decoder_width=0: expected a multiple of 2"),
    ({"mask_ratio": 1.0}, "mask_ratio=1.0"),
    ({"mask": "rnadom"}, "did you mean 'random'"),
    ({"dtype": "float16"}, "dtype='float16': expected"),
  ],
  ids=str,
)
def test_hyperparameters_that_do_not_fit_are_named(wrong, message):
  keywords = {"image_size": (4, 6), "encoder": RESNET, "decoder_width": 8, **wrong}
  with pytest.raises(UserError, match=message):
    spark(**keywords)


def test_images_of_other_shapes_are_refused():
  with pytest.raises(UserError, match="images of 6x4x3: expected 4x6x3"):
    make().init(KEY, {"image": jnp.zeros((2, 6, 4, 3))})
