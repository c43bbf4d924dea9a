"""Convolutional encoders against transformers, torch, and loops over visible sites."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken

from maskjax.errors import UserError
from maskjax.models import CNN_SIZES, conv_encoder, is_cnn
from maskjax.models.convnext import ConvNext
from maskjax.models.convolution import BatchNorm, running, zero_masked
from maskjax.models.resnet import ResNet

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# [B, rows, columns], True where masked.
MASKED = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 1]]], bool)


@functools.cache
def variables_of(network, size=16):
  """Random variables, none of which is 0 or 1."""
  made = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
  statistics = jax.tree.map_with_path(
    lambda path, x: (
      np.abs(random(*x.shape)) + 0.5 if path[-1].key == "variance" else random(*x.shape)
    ),
    made.get("statistics", {}),
  )
  return shaken(made["params"]), statistics


# Against transformers


def tensor(array):
  return torch.from_numpy(np.array(array))


def load(module, params, statistics=None):
  """Puts our parameters of a layer into theirs."""
  with torch.no_grad():
    kernel = params.get("kernel", params.get("scale"))
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[kernel.ndim]
    module.weight.copy_(tensor(kernel.transpose(order)))
    if "bias" in params:
      module.bias.copy_(tensor(params["bias"]))
    if statistics is not None:
      module.running_mean.copy_(tensor(statistics["mean"]))
      module.running_var.copy_(tensor(statistics["variance"]))


def load_resnet(theirs, params, statistics):
  def layer(module, ours, name):
    load(module.convolution, ours[0][name])
    load(module.normalization, *(tree[f"{name}_norm"] for tree in ours))

  layer(theirs.embedder.embedder, (params, statistics), "stem")
  for i, stage in enumerate(theirs.encoder.stages):
    for j, block in enumerate(stage.layers):
      ours = tuple(tree[f"stage_{i}_block_{j}"] for tree in (params, statistics))
      for k, module in enumerate(block.layer):
        layer(module, ours, f"conv_{k}")
      if "shortcut" in ours[0]:
        layer(block.shortcut, ours, "shortcut")


@functools.cache
def resnets(bottleneck):
  """Ours, with its variables, and theirs."""
  shape = dict(depths=(2, 1, 1), bottleneck=bottleneck)
  ours = ResNet(widths=(8, 12, 16), stem_width=6, **shape)
  config = transformers.ResNetConfig(
    embedding_size=6,
    hidden_sizes=[8, 12, 16],
    depths=[2, 1, 1],
    layer_type="bottleneck" if bottleneck else "basic",
  )
  theirs = transformers.ResNetModel(config)
  variables = variables_of(ours, 32)
  load_resnet(theirs, *variables)
  return ours, variables, theirs


def stages_of(theirs, images):
  # The first of theirs is before the first stage.
  states = theirs(tensor(images).movedim(-1, 1), output_hidden_states=True)
  return [x.movedim(1, -1) for x in states.hidden_states[1:]]


@pytest.mark.parametrize("bottleneck", [True, False])
def test_resnet_is_that_of_transformers(bottleneck):
  ours, (params, statistics), theirs = resnets(bottleneck)
  images = random(3, 32, 32, 3)
  found = jax.jit(ours.apply)({"params": params, "statistics": statistics}, images)
  with torch.no_grad():
    expected = stages_of(theirs.eval(), images)
  assert [x.shape for x in found] == [(3, 8, 8, 8), (3, 4, 4, 12), (3, 2, 2, 16)]
  for a, b in zip(found, expected, strict=True):
    assert_close(a, b.numpy())


def test_resnet_trains_as_that_of_transformers():
  """By the statistics of the batch, through which gradients flow."""
  ours, (params, statistics), theirs = resnets(True)
  images, weights = random(3, 32, 32, 3), random(3, 2, 2, 16, seed=1)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(params):
    stages, sums = ours.apply({"params": params}, images, mutable=["moments"])
    return (stages[-1] * weights).sum(), sums["moments"]

  (value, moments), gradients = run(params)
  load_resnet(theirs, params, statistics)
  theirs.train().zero_grad()
  loss = (stages_of(theirs, images)[-1] * tensor(weights)).sum()
  loss.backward()
  np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
  stem = theirs.embedder.embedder
  assert_close(
    gradients["stem"]["kernel"], stem.convolution.weight.grad.permute(2, 3, 1, 0)
  )
  assert_close(gradients["stem_norm"]["scale"], stem.normalization.weight.grad)
  # Theirs keep the unbiased variance.
  after = running(statistics, moments)["stem_norm"]
  before, count = statistics["stem_norm"], 3 * 16 * 16
  assert_close(after["mean"], stem.normalization.running_mean)
  unbiased = (after["variance"] - 0.9 * before["variance"]) * count / (count - 1)
  assert_close(0.9 * before["variance"] + unbiased, stem.normalization.running_var)
  load_resnet(theirs, params, statistics)


def test_convnext_is_that_of_transformers():
  ours = ConvNext(widths=(8, 12, 16), depths=(2, 1, 1), stem_stride=4)
  params, statistics = variables_of(ours, 32)
  assert not statistics
  config = transformers.ConvNextConfig(
    num_stages=3, hidden_sizes=[8, 12, 16], depths=[2, 1, 1], layer_norm_eps=1e-6
  )
  theirs = transformers.ConvNextModel(config).eval()
  load(theirs.embeddings.patch_embeddings, params["stem"])
  load(theirs.embeddings.layernorm, params["stem_norm"])
  for i, stage in enumerate(theirs.encoder.stages):
    if i > 0:
      load(stage.downsampling_layer[0], params[f"reduce_{i}_norm"])
      load(stage.downsampling_layer[1], params[f"reduce_{i}"])
    for j, block in enumerate(stage.layers):
      own = params[f"stage_{i}_block_{j}"]
      load(block.dwconv, own["depthwise"])
      load(block.layernorm, own["norm"])
      load(block.pwconv1, own["mlp"]["up"])
      load(block.pwconv2, own["mlp"]["down"])
      with torch.no_grad():
        block.layer_scale_parameter.copy_(tensor(own["layer_scale"]))
  images = random(3, 32, 32, 3)
  found = jax.jit(ours.apply)({"params": params}, images)
  with torch.no_grad():
    expected = stages_of(theirs, images)
  for a, b in zip(found, expected, strict=True):
    assert_close(a, b.numpy())


# Torchvision's counts, less their classifiers of 1000 classes.
COUNTS = {
  "resnet18": 11_689_512 - 513_000,
  "resnet50": 25_557_032 - 2_049_000,
  "resnet152": 60_192_808 - 2_049_000,
  "convnext_t": 28_589_128 - 769_000 - 2 * 768,
  "convnext_l": 197_767_336 - 1_537_000 - 2 * 1536,
}


@pytest.mark.parametrize("size", COUNTS)
def test_parameters_are_as_many_as_published(size):
  encoder = conv_encoder(image_size=32, patch_size=None, encoder=size)
  params = jax.eval_shape(
    encoder.init, jax.random.key(0), jnp.zeros((1, 1, 32 * 32 * 3))
  )["params"]
  assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[size]


# Sparse layers, against loops over visible sites


def visible_sites(masked, side):
  """Rows of (example, row, column), of all visible positions of a side x side plane."""
  scale = side // masked.shape[1]
  return [
    (b, r, c)
    for b in range(len(masked))
    for r in range(side)
    for c in range(side)
    if not masked[b, r // scale, c // scale]
  ]


def sparse_conv(features, kernel, stride, masked, side, reduce=None):
  """A convolution as sparse ones are defined: from visible sites to visible sites.

  Args:
    features: {site: vector} on a plane of side * stride.
    kernel: [K, K, C, E], or [K, K, 1, C] for a depthwise one.
    stride: between outputs.
    masked: the mask.
    side: of the output.
    reduce: in place of the weighted sum, a function of all vectors in the window.
  """
  size = kernel.shape[0]
  pad = size // 2 if size % 2 else 0
  out = {}
  for b, r, c in visible_sites(masked, side):
    window = {
      (i, j): features[site]
      for i in range(size)
      for j in range(size)
      if (site := (b, r * stride + i - pad, c * stride + j - pad)) in features
    }
    if reduce is not None:
      out[b, r, c] = reduce(list(window.values()))
    elif kernel.shape[2] == 1:
      out[b, r, c] = sum(kernel[i, j, 0] * x for (i, j), x in window.items())
    else:
      out[b, r, c] = sum(x @ kernel[i, j] for (i, j), x in window.items())
  return out


def sparse_norm(features, params):
  """Batch normalization by the statistics of visible sites."""
  values = np.array(list(features.values()))
  mean, std = values.mean(axis=0), np.sqrt(values.var(axis=0) + 1e-5)
  return {
    site: (x - mean) / std * params["scale"] + params["bias"]
    for site, x in features.items()
  }


def each(function, *features):
  return {site: function(*(f[site] for f in features)) for site in features[0]}


def layer_norm(x, params):
  x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
  return x * params["scale"] + params["bias"]


def assert_sites(found, expected, side):
  """Compares a plane with sites, between which it has to be 0."""
  plane = np.zeros((len(MASKED), side, side, found.shape[-1]))
  for site, x in expected.items():
    plane[site] = x
  assert_close(found, plane)
  np.testing.assert_array_equal(found[plane == 0], 0)


def sites_of(images):
  return {s: images[s].astype(np.float64) for s in visible_sites(MASKED, 16)}


def relu(x):
  return np.maximum(x, 0)


def test_sparse_resnet_by_loops():
  network = ResNet(widths=(6, 8), depths=(1, 1), bottleneck=False, stem_width=5)
  params, _ = variables_of(network)
  images = random(2, 16, 16, 3)
  found, sums = jax.jit(
    lambda p: network.apply({"params": p}, images, MASKED, mutable=["moments"])
  )(params)
  x = sparse_conv(sites_of(images), params["stem"]["kernel"], 2, MASKED, 8)
  assert_close(sums["moments"]["stem_norm"]["count"], np.float32(3 * 16))
  assert_close(sums["moments"]["stem_norm"]["sum"], sum(x.values()))
  assert_close(sums["moments"]["stem_norm"]["squares"], sum(v**2 for v in x.values()))
  x = each(relu, sparse_norm(x, params["stem_norm"]))
  window = np.zeros((3, 3, 1, 1))
  x = sparse_conv(x, window, 2, MASKED, 4, reduce=lambda values: np.max(values, axis=0))
  for i, side in enumerate((4, 2)):
    own, stride = params[f"stage_{i}_block_0"], 1 + i
    y = sparse_conv(x, own["conv_0"]["kernel"], stride, MASKED, side)
    y = each(relu, sparse_norm(y, own["conv_0_norm"]))
    y = sparse_conv(y, own["conv_1"]["kernel"], 1, MASKED, side)
    y = sparse_norm(y, own["conv_1_norm"])
    x = sparse_conv(x, own["shortcut"]["kernel"], stride, MASKED, side)
    x = each(lambda a, b: relu(a + b), y, sparse_norm(x, own["shortcut_norm"]))
    assert_sites(np.asarray(found[i]), x, side)


def test_sparse_convnext_by_loops():
  network = ConvNext(widths=(6, 8), depths=(1, 1), stem_stride=2)
  params, _ = variables_of(network)
  images = random(2, 16, 16, 3)
  found = jax.jit(network.apply)({"params": params}, images, MASKED)
  gelu = torch.nn.functional.gelu

  def dense(x, own):
    return x @ own["kernel"].astype(np.float64) + own["bias"]

  def branch(x, own):
    x = dense(layer_norm(x + own["depthwise"]["bias"], own["norm"]), own["mlp"]["up"])
    return dense(gelu(tensor(x)).numpy(), own["mlp"]["down"]) * own["layer_scale"]

  x = sites_of(images)
  for i, (side, name) in enumerate(((8, "stem"), (4, "reduce_1"))):
    own, norm = params[f"stage_{i}_block_0"], params[f"{name}_norm"]
    if i > 0:
      x = each(functools.partial(layer_norm, params=norm), x)
    x = sparse_conv(x, params[name]["kernel"], 2, MASKED, side)
    x = each(lambda v, name=name: v + params[name]["bias"], x)
    if i == 0:
      x = each(functools.partial(layer_norm, params=norm), x)
    y = sparse_conv(x, own["depthwise"]["kernel"], 1, MASKED, side)
    x = each(lambda a, b, own=own: a + branch(b, own), x, y)
    assert_sites(np.asarray(found[i]), x, side)


@pytest.mark.parametrize("kind", [ResNet, ConvNext])
def test_a_dense_network_sees_what_is_masked_and_a_sparse_one_does_not(kind):
  network = kind(widths=(6, 8), depths=(1, 1))
  params, statistics = variables_of(network)

  @jax.jit
  def run(images, masked):
    variables = {"params": params, "statistics": statistics}
    return network.apply(variables, images, masked)[0]

  images = random(2, 16, 16, 3)
  erased = np.asarray(zero_masked(images, MASKED))
  painted = np.where(erased == 0, 100 * random(2, 16, 16, 3, seed=1), images)
  np.testing.assert_array_equal(run(painted, MASKED), run(images, MASKED))
  nobody = np.zeros_like(MASKED)
  visible = ~np.repeat(np.repeat(MASKED, 2, 1), 2, 2)
  change = np.abs(run(erased, nobody) - run(images, MASKED))[visible]
  assert change.max() > 0.01  # zeros in place of the masked parts are not the same


# Batch normalization


def test_running_averages_of_microbatches_are_those_of_the_batch():
  norm = BatchNorm()
  x = 3 + 2 * random(6, 4, 4, 5)
  masked = np.random.default_rng(0).random((6, 2, 2)) < 0.5
  masked[:, 0, 0] = False
  params = {"scale": np.ones(5, np.float32), "bias": np.zeros(5, np.float32)}

  train = jax.jit(functools.partial(norm.apply, mutable=["moments"]))
  rows = (slice(0, 3), slice(3, 6))
  parts = [train({"params": params}, x[r], masked[r])[1]["moments"] for r in rows]
  seen = x[~np.repeat(np.repeat(masked, 2, 1), 2, 2)].astype(np.float64)
  before = {"mean": random(5), "variance": np.abs(random(5))}
  after = running(before, jax.tree.map(jnp.add, *parts), decay=0.7)
  assert_close(after["mean"], 0.7 * before["mean"] + 0.3 * seen.mean(axis=0))
  assert_close(after["variance"], 0.7 * before["variance"] + 0.3 * seen.var(axis=0))
  # And they, not the batch, decide once training is over.
  y = norm.apply({"params": params, "statistics": after}, x[:1], masked[:1])
  expected = (x[:1] - after["mean"]) / np.sqrt(after["variance"] + 1e-5)
  assert_close(y, zero_masked(expected, masked[:1]))


def test_statistics_are_float32_beside_bfloat16():
  norm = BatchNorm(dtype=jnp.bfloat16)
  x = jnp.asarray(40 + random(64, 4, 4, 1), jnp.bfloat16)
  made = jax.jit(norm.init)(jax.random.key(0), x)
  train = jax.jit(functools.partial(norm.apply, mutable=["moments"]))
  y, sums = train({"params": made["params"]}, x)
  assert y.dtype == jnp.bfloat16
  assert {a.dtype for a in jax.tree.leaves(made)} == {jnp.dtype("float32")}
  wide = np.asarray(x, np.float64)
  mean = sums["moments"]["sum"] / sums["moments"]["count"]
  np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-6)
  # Half a unit of bfloat16, of values of up to 4.
  expected = (wide - wide.mean()) / wide.std()
  np.testing.assert_allclose(np.asarray(y, np.float64), expected, atol=2e-2)


# The encoder


def test_encoders_cut_nothing_but_the_image():
  encoder = conv_encoder(
    image_size=(8, 12),
    patch_size=4,
    encoder=dict(name="resnet", widths=(4, 6), depths=(1, 1), stem_stride=1),
  )
  assert encoder.grid == (2, 3)
  patches = random(2, 6, 16)
  made = jax.jit(encoder.init)(jax.random.key(0), patches)
  variables = {"params": shaken(made["params"]), "statistics": made["statistics"]}
  whole_of = jax.jit(encoder.apply)
  each_of = jax.jit(functools.partial(encoder.apply, method="each"))
  assert whole_of(variables, patches).shape == (2, 4 * 6, 6)
  each = each_of(variables, patches)
  assert each.shape == (2, 6, 6)
  # A patch by itself does not know its neighbors.
  other = patches.copy()
  other[:, 1:] = random(2, 5, 16, seed=1)
  again = each_of(variables, other)
  assert_close(again[:, 0], each[:, 0])
  assert np.abs(again[:, 1:] - each[:, 1:]).max() > 0.1
  # [B, H / 2, W / 2, D]: its code in the whole image does.
  corner = [
    np.asarray(whole_of(variables, x)).reshape(2, 4, 6, 6)[:, :2, :2]
    for x in (patches, other)
  ]
  assert np.abs(corner[0] - corner[1]).max() > 1e-3


def test_names_of_cnns():
  assert all(is_cnn(size) and is_cnn({"size": size}) for size in CNN_SIZES)
  assert is_cnn({"name": "resnet", "widths": (4,), "depths": (1,)})
  assert not is_cnn("B") and not is_cnn({"width": 8, "depth": 1, "heads": 2})


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ("resnet51", "no convolutional encoder 'resnet51': did you mean 'resnet50'"),
    ({"size": "resnet50", "width": 3}, "encoder.width: did you mean 'widths'"),
    ({"name": "resnext"}, "encoder.name='resnext': did you mean"),
    ({"widths": (3,)}, "encoder.name='None'"),
    ({"name": "resnet", "depths": (1,)}, "encoder.widths=None: expected a positive"),
    ({"name": "resnet", "widths": (4, 0), "depths": (1, 1)}, r"widths=\(4, 0\)"),
    ({"name": "resnet", "widths": (4, 8), "depths": (1,)}, "one for each of encoder"),
    ({"size": "resnet50", "stem_stride": 3}, "stem_stride=3: expected 1, 2 or 4"),
    ({"size": "resnet50", "drop_path": 1.0}, "drop_path=1.0: expected at least 0"),
  ],
  ids=str,
)
def test_hyperparameters_that_do_not_fit_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    conv_encoder(image_size=32, patch_size=None, encoder=wrong)


def test_images_that_the_stride_does_not_divide_are_named():
  with pytest.raises(UserError, match="patch_size=32x32 does not divide image_size=28"):
    conv_encoder(image_size=28, patch_size=None, encoder="resnet50")
