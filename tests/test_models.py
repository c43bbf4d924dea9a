"""Networks, against NumPy, against torch, and against themselves in other forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from maskjax import objectives, resolve
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import (
  VIT_SIZES,
  Decoder,
  MaskedAutoencoder,
  Transformer,
  VisionEncoder,
  attention,
  dense,
  stack_blocks,
  unstack_blocks,
)
from maskjax.models.attention import attend, by_columns, by_groups, heads_a_group
from maskjax.models.gelu import gelu
from maskjax.models.transformer import Block
from maskjax.objectives import classification, mae


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shaken(params, seed=0):
  """Parameters none of which is 0 or 1, so that each shows."""
  rng = np.random.default_rng(seed)
  return jax.tree.map_with_path(
    lambda path, leaf: np.float32(
      0.3 * rng.normal(size=leaf.shape) + (path[-1].key == "scale")
    ),
    params,
  )


def assert_close(ours, theirs, tolerance=1e-5):
  """Largest difference, relative to the largest magnitude, of each leaf."""

  def compare(path, a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, path
    size = np.abs(b).max()
    if jax.tree_util.keystr(path).endswith("['key']['bias']"):
      # Adds the same to all scores of a query: its gradient is rounding alone.
      assert size < 1e-5, path
      size = 1
    assert size > 0, path
    assert np.abs(a - b).max() <= tolerance * size, path

  jax.tree.map_with_path(compare, ours, theirs)


# Attention


def as_columns(query, key, value):
  """`by_columns` of [B, H, N, D]."""
  arrays = (query * query.shape[-1] ** -0.5, key, value)
  return by_columns(*(x.transpose(1, 0, 3, 2) for x in arrays)).transpose(1, 0, 3, 2)


def as_group(query, key, value):
  """`by_groups` of [B, H, N, D], all heads in one."""
  batch, heads, _, depth = query.shape

  def join(x):
    return x.swapaxes(1, 2).reshape(1, batch, -1, heads * depth)

  y = by_groups(join(query * depth**-0.5), join(key), join(value), heads)
  return y.reshape(batch, -1, heads, depth).swapaxes(1, 2)


FORMS = {"attend": attend, "columns": as_columns, "groups": as_group}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("queries", [7, 3])
def test_attend_is_torchs(queries, form):
  torch = pytest.importorskip("torch")
  inputs = [random(2, 3, n, 4, seed=n) * 2 for n in (queries, 7, 8)]
  inputs[2] = inputs[2][:, :, :7]
  weights = random(2, 3, queries, 4, seed=9)
  theirs = [torch.from_numpy(x).double().requires_grad_() for x in inputs]
  output = torch.nn.functional.scaled_dot_product_attention(*theirs)
  (output * torch.from_numpy(weights)).sum().backward()

  @jax.jit
  def run(*inputs):
    ours, pullback = jax.vjp(FORMS[form], *inputs)
    return ours, pullback(jnp.asarray(weights))

  ours, gradients = run(*inputs)
  assert_close(ours, output.detach().numpy(), 2e-6)
  assert_close(gradients, tuple(x.grad.numpy() for x in theirs), 2e-6)


@pytest.mark.parametrize(("form", "roundings"), [("attend", 1), ("columns", 2)])
def test_attend_in_bfloat16_has_its_softmax_in_float32(form, roundings):
  # Exactly representable inputs whose scores, 256 and 257, are one number in
  # bfloat16: a softmax of rounded scores would give them the same weight.
  query = jnp.bfloat16([[[[16.0, 1.0, 0.0, 0.0]]]])
  key = jnp.bfloat16([[[[32.0, 0.0, 0.0, 0.0], [32.0, 2.0, 0.0, 0.0]]]])
  value = jnp.bfloat16([[[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]])
  out = FORMS[form](query, key, value)
  assert out.dtype == jnp.bfloat16
  # Weights are rounded to bfloat16, of 8 bits; before their division, if by columns,
  # which is rounded again.
  expected = [1 / (1 + math.e), math.e / (1 + math.e), 0, 0]
  np.testing.assert_allclose(np.float32(out)[0, 0, 0], expected, rtol=roundings * 2**-8)


@pytest.mark.parametrize("form", FORMS)
def test_attend_has_derivatives_forward_too(form):
  inputs = [random(2, 3, 7, 4, seed=seed) for seed in range(3)]
  steps = [random(2, 3, 7, 4, seed=seed) for seed in range(3, 6)]
  ours = jax.jit(functools.partial(jax.jvp, FORMS[form]))(inputs, steps)
  theirs = jax.jit(functools.partial(jax.jvp, attend))(inputs, steps)
  assert_close(ours, theirs, 2e-6)


@pytest.mark.parametrize(
  ("shape", "group"),
  [
    ((16, 50, 64), 2),
    ((16, 50, 32), 2),
    ((15, 16, 16), 5),
    ((12, 10, 8), 12),
    ((16, 50, 80), 1),
    ((16, 197, 32), 1),
    ((3, 50, 64), 1),
    ((4, 9, 256), 1),
  ],
)
def test_a_group_of_heads_fits_the_lanes(shape, group):
  heads, length, depth = shape
  assert heads_a_group(heads=heads, length=length, depth=depth) == group


@pytest.fixture(params=["groups", "columns"])
def as_on_tpu(monkeypatch, request):
  """Lets models take the forms that they have on TPUs, on this machine."""
  for module in (attention, dense):
    monkeypatch.setattr(module, "for_tpu", lambda: True)
  if request.param == "columns":
    monkeypatch.setattr(attention, "LANES", 1)  # which no group fits


@pytest.mark.parametrize("num_queries", [None, 3])
def test_the_block_is_the_same_on_tpu(as_on_tpu, num_queries):
  test_block_by_hand(num_queries)


# GELU


def test_gelu_is_torchs():
  torch = pytest.importorskip("torch")
  x = np.linspace(-8, 8, 4001, dtype=np.float32)
  wide = torch.from_numpy(x).double().requires_grad_()
  torch.nn.functional.gelu(wide).sum().backward()
  ours, slope = jax.jit(jax.vmap(jax.value_and_grad(gelu)))(x)
  expected = torch.nn.functional.gelu(wide.detach()).numpy()
  # Of numbers up to 8, times a probability rounded to 24 bits.
  np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-6)
  np.testing.assert_allclose(slope, wide.grad.numpy(), rtol=2e-6, atol=1e-6)


def test_gelu_leaves_its_input_alone_for_the_backward_pass():
  _, pullback = jax.vjp(gelu, jnp.ones((4, 8), jnp.bfloat16))
  kept = [leaf.shape for leaf in jax.tree.leaves(pullback) if leaf.ndim]
  assert kept == [(4, 8)]


# The block

B, N, D, HEADS, EPSILON = 3, 5, 8, 2, 0.1


def norm_by_hand(x, p):
  centred = x - x.mean(axis=-1, keepdims=True)
  variance = (centred**2).mean(axis=-1, keepdims=True)
  return centred / np.sqrt(variance + EPSILON) * p["scale"] + p["bias"]


def block_by_hand(p, x, attention_kept=1.0, mlp_kept=1.0):
  """X + attention(norm(x)), then x + mlp(norm(x)), in float64."""
  p = jax.tree.map(np.float64, p)

  def dense(x, p):
    return x @ p["kernel"] + p["bias"]

  y, a = norm_by_hand(x, p["attention_norm"]), p["attention"]
  heads = []
  for h in range(HEADS):
    part = slice(h * D // HEADS, (h + 1) * D // HEADS)
    q, k, v = (dense(y, a[name])[..., part] for name in ("query", "key", "value"))
    weights = softmax(q @ k.swapaxes(1, 2) / math.sqrt(D // HEADS), axis=-1)
    heads.append(weights @ v)
  x = x + attention_kept * dense(np.concatenate(heads, axis=-1), a["out"])
  z = dense(norm_by_hand(x, p["mlp_norm"]), p["mlp"]["up"])
  z = z * (1 + erf(z / math.sqrt(2))) / 2
  return x + mlp_kept * dense(z, p["mlp"]["down"])


@pytest.mark.parametrize("num_queries", [None, 3])
def test_block_by_hand(num_queries):
  block = Block(
    heads=HEADS, mlp_ratio=1.5, norm_epsilon=EPSILON, num_queries=num_queries
  )
  x = 2 * random(B, N, D)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
  assert shapes["mlp"]["up"]["kernel"].shape == (D, 12)
  params = shaken(shapes)
  expected = block_by_hand(params, x)
  expected = expected if num_queries is None else expected[:, -num_queries:]
  assert_close(jax.jit(block.apply)({"params": params}, x), expected)


# The stack


def make_transformer(**more):
  return Transformer(
    **{"depth": 2, "heads": HEADS, "norm_epsilon": EPSILON, "mlp_ratio": 2.0, **more}
  )


def make_params(depth=2):
  model = make_transformer(depth=depth)
  shapes = jax.eval_shape(model.init, jax.random.key(0), random(B, N, D))
  return shaken(shapes["params"])


@functools.cache
def run_transformer(num_queries=None, **options):
  """The last 3 tokens, and the gradients of a random function of them."""
  model, params = make_transformer(**options), make_params()
  scan = options.get("scan", False)
  params = stack_blocks(params) if scan else params
  weights = random(B, 3, D, seed=5)

  @jax.jit
  def run(params, x):
    def last(params, x):
      return model.apply({"params": params}, x, num_queries)[:, -3:]

    y, pullback = jax.vjp(last, params, x)
    return y, *pullback(jnp.asarray(weights))

  y, grads, grad_x = run(params, random(B, N, D))
  return y, unstack_blocks(grads) if scan else grads, grad_x


def test_transformer_by_hand():
  params, x = make_params(), random(B, N, D).astype(np.float64)
  for i in range(2):
    x = block_by_hand(params[f"block_{i}"], x)
  assert_close(run_transformer()[0], x[:, -3:])


@pytest.mark.parametrize(
  "form",
  [
    {"num_queries": 3},
    {"scan": True, "num_queries": 3},
    {"remat": "full"},
    {"remat": "dots"},
    {"scan": True, "remat": "full"},
    {"scan": True, "remat": "dots"},
  ],
  ids=str,
)
def test_other_forms_give_the_same_numbers_and_gradients(form):
  assert_close(run_transformer(**form), run_transformer())


def test_num_queries_are_what_comes_out():
  x = random(B, N, D)
  for scan in (False, True):
    model = make_transformer(scan=scan)
    shape = jax.eval_shape(
      lambda key, model=model: model.init_with_output(key, x, 2)[0], jax.random.key(0)
    )
    assert shape.shape == (B, 2, D)


def test_stack_blocks_and_back():
  # Twelve, of which the eleventh and twelfth come before the third by the alphabet.
  blocks = {f"block_{i}": {"a": {"kernel": np.full(2, i)}, "b": i} for i in range(12)}
  params = {"encoder": {"transformer": blocks, "norm": {"scale": np.ones(2)}}, "x": 1}
  stacked = stack_blocks(params)
  assert list(stacked["encoder"]["transformer"]) == ["blocks"]
  series = stacked["encoder"]["transformer"]["blocks"]
  np.testing.assert_array_equal(series["b"], range(12))
  np.testing.assert_array_equal(series["a"]["kernel"][:, 1], range(12))
  back = unstack_blocks(stacked)
  assert jax.tree.structure(back) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, back, params)


def test_scanned_parameters_are_those_of_a_stack():
  scanned, separate = (
    jax.eval_shape(
      make_transformer(scan=scan).init, jax.random.key(0), random(B, N, D)
    )["params"]
    for scan in (True, False)
  )
  stacked = jax.eval_shape(stack_blocks, separate)
  assert jax.tree.map(lambda x: x.shape, scanned) == jax.tree.map(
    lambda x: x.shape, stacked
  )


# Drop path


def test_keep_drops_whole_examples_and_scales_the_others():
  y = random(2000, 3, 2) + 10
  keep = functools.partial(Block(heads=2).apply, {}, y, 0.25, method="keep")
  np.testing.assert_array_equal(keep(), y)
  out = np.asarray(keep(rngs={"drop_path": jax.random.key(0)}))
  dropped = (out == 0).all(axis=(1, 2))
  np.testing.assert_allclose(out[~dropped], y[~dropped] / 0.75, rtol=1e-6)
  # Hoeffding's bound, which one seed in 10^9 passes; so the mean is preserved.
  assert abs(dropped.mean() - 0.25) < math.sqrt(math.log(2e9) / (2 * 2000))


@pytest.mark.parametrize("scan", [False, True])
def test_drop_path_rises_from_0_over_the_blocks(scan):
  model, params = make_transformer(depth=3, drop_path=0.5, scan=scan), make_params(3)
  x = np.tile(random(1, N, D), (32, 1, 1))

  @jax.jit
  def run(params, key):
    def tokens(rngs):
      _, sown = model.apply({"params": params}, x, rngs=rngs, mutable=["intermediates"])
      sown = sown["intermediates"]
      if scan:
        return sown["blocks"]["tokens"][0]
      return jnp.stack([sown[f"block_{i}"]["tokens"][0] for i in range(3)])

    return tokens({}), tokens({"drop_path": key})

  whole, dropped = run(stack_blocks(params) if scan else params, jax.random.key(1))
  undisturbed = x[:1].astype(np.float64)
  for i in range(3):
    # Without a generator nothing is dropped.
    undisturbed = block_by_hand(params[f"block_{i}"], undisturbed)
    assert_close(whole[i], np.tile(undisturbed, (32, 1, 1)))
  # The first block drops nothing; each later one drops or scales either branch.
  assert_close(dropped[0], whole[0], 1e-6)
  for i, kept in ((1, 0.75), (2, 0.5)):
    before = np.asarray(dropped[i - 1], np.float64)
    candidates = np.stack(
      [
        block_by_hand(params[f"block_{i}"], before, a, m)
        for a in (0, 1 / kept)
        for m in (0, 1 / kept)
      ]
    )
    errors = np.abs(candidates - dropped[i]).max(axis=(2, 3))  # [4, 32]
    assert errors.min(axis=0).max() < 1e-5 * np.abs(candidates).max()
    # With 32 examples each of the four shows, but once in some hundred seeds.
    assert set(errors.argmin(axis=0)) == {0, 1, 2, 3}


# The masked autoencoder

GRID, PATCH = (2, 3), 5
HIDDEN = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]], bool)
MASK = Mask.from_hidden(jnp.asarray(HIDDEN), num_hidden=4)


def make_autoencoder(dtype="float32"):
  small = {"grid": GRID, "depth": 1, "heads": HEADS, "dtype": dtype}
  return MaskedAutoencoder(
    encoder=VisionEncoder(width=8, **small),
    decoder=Decoder(width=12, patch_dim=PATCH, **small),
  )


def test_computing_hidden_tokens_alone_changes_nothing():
  """The decoder's last block leaves out what nobody asked for."""
  decoder, encoded = make_autoencoder().decoder, random(2, 1 + 2, 8)
  shapes = jax.eval_shape(
    lambda key: decoder.init(key, encoded, MASK, False), jax.random.key(0)
  )
  weights = random(2, 4, PATCH)

  @functools.partial(jax.jit, static_argnums=2)
  def run(params, encoded, visible_too):
    def predict(params, encoded):
      out = decoder.apply({"params": params}, encoded, MASK, visible_too)
      return MASK.masked(out) if visible_too else out, out

    hidden, pullback, out = jax.vjp(predict, params, encoded, has_aux=True)
    return out, hidden, pullback(jnp.asarray(weights))

  params = shaken(shapes["params"])
  out, *ours = run(params, encoded, False)
  everything, *of_all = run(params, encoded, True)
  assert out.shape == (2, 4, PATCH)
  assert everything.shape == (2, 6, PATCH)
  assert_close(ours, of_all)


@functools.cache
def autoencoder_params():
  init = make_autoencoder().init
  shapes = jax.eval_shape(init, jax.random.key(0), random(2, 6, PATCH), MASK)
  return shaken(shapes["params"])


@functools.partial(jax.jit, static_argnums=1)
def predict_all(patches, dtype="float32"):
  """Predictions of all patches, and the tokens on the way to them."""
  return make_autoencoder(dtype).apply(
    {"params": autoencoder_params()}, patches, MASK, True, mutable=["intermediates"]
  )


def test_predictions_follow_from_visible_patches_alone():
  patches = random(2, 6, PATCH)
  before = np.asarray(predict_all(patches)[0])
  other = np.where(HIDDEN[..., None], 100 * random(2, 6, PATCH, seed=1), patches)
  np.testing.assert_array_equal(predict_all(other)[0], before)
  other = patches.copy()
  other[0, 4, 2] += 1  # the last visible patch of the first example
  after = np.asarray(predict_all(other)[0])
  assert (after[0] != before[0]).any(axis=1).all()
  np.testing.assert_array_equal(after[1], before[1])


def test_bfloat16_is_of_the_computation_alone():
  patches, model = random(2, 6, PATCH), make_autoencoder(jnp.bfloat16)
  (full, _), (half, sown) = (predict_all(patches, t) for t in ("float32", "bfloat16"))
  assert half.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves(sown)} == {jnp.dtype("bfloat16")}
  # Eight bits, over two blocks; and visibly not float32 in disguise.
  assert 1e-4 < np.abs(half - full).max() / np.abs(full).max() < 0.05
  variables = jax.eval_shape(model.init, jax.random.key(0), patches, MASK)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_dtype_reaches_both_networks():
  small = {"width": 8, "depth": 1, "heads": 2}
  keywords = {"image_size": 4, "patch_size": 2, "encoder": small, "decoder": small}
  for dtype in ("float32", "bfloat16"):
    model = mae(dtype=dtype, **keywords).model
    assert model.encoder.dtype == model.decoder.dtype == jnp.dtype(dtype)
  classifier = classification(
    num_classes=2, dtype="bfloat16", image_size=4, patch_size=2, encoder=small
  ).model
  assert classifier.encoder.dtype == jnp.dtype("bfloat16")
  logits = jax.eval_shape(
    lambda key: classifier.init_with_output(key, jnp.zeros((1, 4, 12)))[0],
    jax.random.key(0),
  )
  assert logits.dtype == jnp.float32


# Sizes

# Published for 224 x 224 images of 1000 classes: DeiT-Ti and -S as timm counts
# them (arXiv:2012.12877), B/16, L/16 and H/14 as torchvision does.
PUBLISHED = {
  "Ti": (16, 5_717_416),
  "S": (16, 22_050_664),
  "B": (16, 86_567_656),
  "L": (16, 304_326_632),
  "H": (14, 632_045_800),
}


@pytest.mark.parametrize("size", VIT_SIZES)
def test_parameters_are_as_many_as_published(size):
  """Those have a linear head and learnt positions, of 1 + N places, as well."""
  patch_size, published = PUBLISHED[size]
  grid = (224 // patch_size,) * 2
  model = VisionEncoder(grid=grid, options={"scan": True}, **VIT_SIZES[size])
  patches = jnp.zeros((1, math.prod(grid), patch_size**2 * 3))
  params = jax.eval_shape(model.init, jax.random.key(0), patches)["params"]
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
  width, depth = VIT_SIZES[size]["width"], VIT_SIZES[size]["depth"]
  assert count == published - 1000 * (width + 1) - (1 + math.prod(grid)) * width
  block = 2 * 2 * width + 4 * width * (width + 1) + 8 * width**2 + 5 * width
  assert count == (patches.shape[2] + 1) * width + width + depth * block + 2 * width


# Mistakes

SMALL = {"width": 8, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"encoder": "b"}, "no ViT size 'b': .*there are: B, H, L, S, Ti"),
    ({"encoder": {"size": "XL"}}, "no ViT size 'XL'"),
    ({"encoder": {"width": 8, "heads": 2}}, "encoder.depth=None: expected a positive"),
    ({"encoder": {**SMALL, "depth": 0}}, "encoder.depth=0: expected a positive"),
    ({"encoder": {**SMALL, "width": 8.0}}, "encoder.width=8.0: expected a positive"),
    ({"encoder": {**SMALL, "head": 2}}, "encoder.head: did you mean 'heads'"),
    ({"encoder": {**SMALL, "heads": 3}}, "encoder.width=8: .* of encoder.heads=3"),
    ({"encoder": {"size": "Ti", "heads": 5}}, "encoder.width=192: .*heads=5"),
    ({"decoder": {"width": 0}}, "decoder.width=0: expected a positive"),
    ({"decoder": {"width": 20}}, "decoder.width=20: .* of decoder.heads=16"),
    ({"decoder": {"dept": 2}}, "decoder.dept: did you mean 'depth'"),
    ({"dtype": "float16"}, "dtype='float16': expected 'float32' or 'bfloat16'"),
    ({"patch_size": 3}, "patch_size=3x3 does not divide image_size=8x8"),
    ({"mask_ratio": 1.0}, "mask_ratio=1.0"),
    ({"mask_ratio": 0.99}, "mask_ratio=0.99 hides 16 of 16"),
    ({"mask": "rnadom"}, "no 'rnadom' in .*did you mean 'random'"),
    ({"mask": {"name": "random", "rows": 1}}, "'random' takes no 'rows'"),
    ({"patch_size": 1}, "norm_pix_loss=True: .*patch_size=1x1 with channels=1"),
  ],
  ids=str,
)
def test_hyperparameters_that_do_not_fit_are_named(wrong, message):
  right = {"image_size": 8, "channels": 1, "patch_size": 2, "encoder": SMALL}
  mae(**right)
  with pytest.raises(UserError, match=message):
    mae(**{**right, **wrong})


def test_widths_without_positions_are_named():
  objective = mae(image_size=8, channels=1, patch_size=2, encoder={**SMALL, "width": 6})
  with pytest.raises(UserError, match="width=6: expected a multiple of 4"):
    objective.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_drop_rates_out_of_range_are_named(rate):
  with pytest.raises(UserError, match=f"drop_path={rate}"):
    classification(num_classes=2, drop_path=rate)


def test_misspelt_hyperparameters_of_mae_are_guessed():
  with pytest.raises(UserError, match="did you mean 'mask_ratio'"):
    resolve.build(objectives, {"name": "mae", "mask_ration": 0.6})


def test_mae_takes_no_drop_path():
  with pytest.raises(UserError, match="'mae' takes no 'drop_path'"):
    resolve.build(objectives, {"name": "mae", "drop_path": 0.1})
