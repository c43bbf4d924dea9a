"""Vision transformers and masked autoencoders."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken

from maskjax import objectives, resolve
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import (
  VIT_SIZES,
  BlockOptions,
  Decoder,
  MaskedAutoencoder,
  VisionEncoder,
  stack_blocks,
  vit_encoder,
)
from maskjax.models.relative_bias import RelativeBias, relative_ids
from maskjax.models.transformer import Block
from maskjax.objectives import classification
from maskjax.systems import mae
from maskjax.tokens import sincos

# The masked autoencoder

GRID, PATCH = (2, 3), 5
MASKED = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]], bool)
MASK = Mask.exactly(jnp.asarray(MASKED), num_masked=4)


def make_autoencoder(dtype="float32"):
  options = BlockOptions(dtype=dtype)
  small = {"grid": GRID, "depth": 1, "heads": 2, "options": options}
  return MaskedAutoencoder(
    encoder=VisionEncoder(width=8, **small),
    decoder=Decoder(width=12, patch_dim=PATCH, **small),
  )


def test_computing_masked_tokens_alone_changes_nothing():
  """The decoder's last block leaves out tokens that no output needs."""
  decoder, encoded = make_autoencoder().decoder, random(2, 1 + 2, 8)
  shapes = jax.eval_shape(
    lambda key: decoder.init(key, encoded, MASK, False), jax.random.key(0)
  )
  weights = random(2, 4, PATCH)

  @functools.partial(jax.jit, static_argnums=2)
  def run(params, encoded, visible_too):
    def predict(params, encoded):
      out = decoder.apply({"params": params}, encoded, MASK, visible_too)
      return MASK.take_masked(out) if visible_too else out, out

    masked, pullback, out = jax.vjp(predict, params, encoded, has_aux=True)
    return out, masked, pullback(jnp.asarray(weights))

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
    {"params": autoencoder_params()},
    *(patches, MASK, True),
    capture_intermediates=lambda module, _: isinstance(module, Block),
    mutable=["intermediates"],
  )


def test_predictions_follow_from_visible_patches_alone():
  patches = random(2, 6, PATCH)
  before = np.asarray(predict_all(patches)[0])
  other = np.where(MASKED[..., None], 100 * random(2, 6, PATCH, seed=1), patches)
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
  tokens = [x for x in jax.tree.leaves(sown) if x.ndim == 3]
  assert {x.dtype for x in tokens} == {jnp.dtype("bfloat16")}
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
    num_classes=2, dtype="bfloat16", system={"name": "mae", **keywords}
  ).model
  assert classifier.encoder.dtype == jnp.dtype("bfloat16")
  logits = jax.eval_shape(
    lambda key: classifier.init_with_output(key, jnp.zeros((1, 4, 12)))[0],
    jax.random.key(0),
  )
  assert logits.dtype == jnp.float32


# What becomes of masked patches, and where the others are


@functools.partial(jax.jit, static_argnames=("every", "options"))
def encode(patches, mask=None, *, options, every=False):
  encoder = VisionEncoder(grid=GRID, width=8, depth=2, heads=2, **dict(options))
  shapes = jax.eval_shape(encoder.init, jax.random.key(0), patches, mask)
  params = shaken(shapes["params"])
  method = "every_block" if every else "__call__"
  return encoder.apply({"params": params}, patches, mask, method=method), params


@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary", "relative"])
def test_tokens_in_place_of_masked_patches_have_their_positions(positions):
  options = (("masked_patches", "token"), ("positions", positions))
  patches = random(2, 6, PATCH)
  before, _ = encode(patches, MASK, options=options)
  assert before.shape == (2, 7, 8)
  other = np.where(MASKED[..., None], 100 * random(2, 6, PATCH, seed=1), patches)
  np.testing.assert_array_equal(encode(other, MASK, options=options)[0], before)
  # Equal tokens at different positions have different features.
  features = [before[0, 1 + n] for n in np.flatnonzero(MASKED[0])]
  assert np.abs(features[0] - features[1]).max() > 1e-3
  unmasked = encode(patches, options=options)[0]
  assert np.abs(unmasked - before).max() > 1e-2


@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary"])
def test_dropped_patches_leave_the_positions_of_the_others(positions):
  options = (("positions", positions), ("class_token", False))
  patches = random(2, 6, PATCH)
  mirrored = Mask.exactly(jnp.asarray(MASKED[:, ::-1]), num_masked=4)
  found = encode(patches, MASK, options=options)[0]
  assert found.shape == (2, 2, 8)
  # The same two patches elsewhere are not the same; the order of the list is nothing.
  moved = encode(patches[:, ::-1], mirrored, options=options)[0][:, ::-1]
  assert np.abs(found - moved).max() > 1e-3
  other = np.where(MASKED[..., None], 100 * patches, patches)
  np.testing.assert_array_equal(encode(other, MASK, options=options)[0], found)


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("positions", ["sincos", "learned", "rotary", "none"])
def test_silent_patches_attend_from_their_positions(positions, class_token):
  options = (
    *(("masked_patches", "silent"), ("positions", positions)),
    ("class_token", class_token),
  )
  patches, first = random(2, 6, PATCH), int(class_token)
  before = encode(patches, MASK, options=options)[0]
  assert before.shape == (2, first + 6, 8)
  for n in range(6):
    other = np.where((np.arange(6) == n)[:, None], -patches, patches)
    after = encode(other, MASK, options=options)[0]
    changed = np.abs(after - before).max(axis=2) > 1e-5
    for b in range(2):
      own = np.arange(first + 6) == first + n
      np.testing.assert_array_equal(changed[b], own if MASKED[b, n] else True)
  # Where nothing is masked, it is as any other encoder.
  usual = (("positions", positions), ("class_token", class_token))
  nothing = Mask.exactly(jnp.zeros((2, 6), bool), num_masked=0)
  everything = encode(patches, nothing, options=options)[0]
  np.testing.assert_allclose(everything, encode(patches, options=usual)[0], atol=1e-5)


@functools.partial(jax.jit, static_argnames=("layer", "class_token", "scan"))
def encode_late(patches, mask, *, layer, class_token=True, scan=False):
  """Tokens before the first block and after each of three, and parameters."""
  encoder = VisionEncoder(
    grid=GRID,
    width=8,
    depth=3,
    heads=2,
    masked_patches="token",
    mask_token_layer=layer,
    class_token=class_token,
  )
  params = shaken(jax.eval_shape(encoder.init, jax.random.key(0), patches)["params"])
  own = params
  if scan:
    encoder = encoder.clone(options=BlockOptions(scan=True))
    own = stack_blocks(params)
  outputs = encoder.apply(
    {"params": own}, patches, mask, embedded_too=True, method="every_block"
  )
  return outputs, params


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_mask_tokens_enter_before_their_layer(layer, class_token, scan):
  """The patches are seen up to the layer, and there the token itself stands."""
  patches, first = random(2, 6, PATCH), int(class_token)
  how = {"class_token": class_token, "scan": scan}
  found, params = encode_late(patches, MASK, layer=layer, **how)
  unmasked, _ = encode_late(patches, None, layer=layer, **how)
  for i in range(layer + 1 if layer else 0):
    assert_close(found[i], unmasked[i], 1e-6)
  # What the block after it reads: by hand, and through the block alone.
  masked = np.pad(MASKED, ((0, 0), (first, 0)))[..., None]
  if layer:
    entered = np.where(masked, params["mask_token"], found[layer])
  else:
    table = np.pad(sincos(GRID, 8), ((first, 0), (0, 0)))
    entered = np.where(masked, params["mask_token"] + table, unmasked[0])
    assert_close(found[0], entered, 1e-6)
  block = Block(heads=2)
  expected = block.apply({"params": params["transformer"][f"block_{layer}"]}, entered)
  if layer == 2:
    norm = params["norm"]
    centered = expected - expected.mean(axis=-1, keepdims=True)
    centered /= np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-6)
    expected = centered * norm["scale"] + norm["bias"]
  assert_close(found[layer + 1], expected)


def test_mistakes_of_the_layer_of_mask_tokens():
  small = {"grid": GRID, "encoder": SMALL}
  with pytest.raises(UserError, match="mask_token_layer=1: .* encoder.depth=1"):
    vit_encoder(**small, masked_patches="token", mask_token_layer=1)
  deep = {**small, "encoder": {**SMALL, "depth": 2}}
  with pytest.raises(UserError, match="mask_token_layer=1: expected masked_patches="):
    vit_encoder(**deep, mask_token_layer=1)


# Clips

CLIP = (2, 2, 3)


def test_relative_ids_number_the_offsets_of_three_axes():
  found, seen = relative_ids(CLIP), {}
  positions = np.indices(CLIP).reshape(3, -1).T
  for a in range(12):
    for b in range(12):
      seen.setdefault(tuple(positions[a] - positions[b]), set()).add(found[a, b])
  assert sorted(ids.pop() for ids in seen.values() if len(ids) == 1) == list(range(45))


@pytest.mark.parametrize(
  "positions", ["sincos", "learned", "rotary", "relative", "none"]
)
def test_clips_have_positions_of_three_axes(positions):
  encoder = VisionEncoder(
    grid=CLIP, width=12, depth=1, heads=2, positions=positions, masked_patches="token"
  )
  patches = np.ones((1, 12, PATCH), np.float32)
  patches[0, 0] = 2
  init = jax.eval_shape(encoder.init, jax.random.key(0), patches)
  params = shaken(init["params"])
  found = np.asarray(jax.jit(encoder.apply)({"params": params}, patches))[0]
  assert found.shape == (13, 12)
  # Equal patches at other positions of a clip have features of their own.
  apart = np.abs(found[2:, None] - found[None, 2:]).max(axis=-1)
  apart += np.eye(11)
  assert (apart.min() > 1e-4) == (positions != "none")
  if positions == "relative":
    assert params["relative"]["table"].shape == (3 * 3 * 5 + 3, 2)


def test_rotary_positions_of_clips_need_channels_for_three_axes():
  assert vit_encoder(grid=CLIP, encoder=SMALL).grid == CLIP
  with pytest.raises(UserError, match="encoder.width=8: expected a multiple of 6 "):
    vit_encoder(grid=CLIP, encoder=SMALL, positions="rotary")


def test_decoders_predict_masked_patches_of_clips():
  masked = np.arange(12) % 3 > 0
  mask = Mask.exactly(jnp.asarray(masked)[None], num_masked=8)
  encoded = random(1, 5, 12)
  for positions in ("sincos", "rotary"):
    decoder = Decoder(
      grid=CLIP, width=12, depth=1, heads=2, patch_dim=PATCH, positions=positions
    )
    shapes = jax.eval_shape(
      lambda key, decoder=decoder: decoder.init_with_output(key, encoded, mask, True),
      jax.random.key(0),
    )
    assert shapes[0].shape == (1, 12, PATCH)


def test_embedded_tokens_come_first_where_they_are_wanted():
  encoder = VisionEncoder(grid=GRID, width=8, depth=2, heads=2)
  patches = random(2, 6, PATCH)
  shapes = jax.eval_shape(encoder.init, jax.random.key(0), patches)
  params = shaken(shapes["params"])
  embedded, *outputs = encoder.apply(
    {"params": params}, patches, MASK, embedded_too=True, method="every_block"
  )
  assert len(outputs) == 2 and embedded.shape == outputs[0].shape == (2, 3, 8)
  table = sincos(GRID, 8)
  expected = patches @ params["embed"]["kernel"] + params["embed"]["bias"] + table
  np.testing.assert_allclose(embedded[:, 1:], MASK.take_visible(expected), atol=1e-5)
  cls = np.broadcast_to(params["cls"][:, 0], (2, 8))
  np.testing.assert_allclose(embedded[:, 0], cls, atol=1e-6)


def test_without_positions_the_order_of_patches_does_not_matter():
  options = (("positions", "none"),)
  patches = random(2, 6, PATCH)
  features, turned = (
    np.asarray(encode(x, options=options)[0]) for x in (patches, patches[:, ::-1])
  )
  assert_close(turned[:, 1:], features[:, :0:-1])


def test_relative_biases_are_of_offsets():
  rows, columns = 2, 3
  bias = RelativeBias(grid=(rows, columns), heads=2)
  table = random((2 * rows - 1) * (2 * columns - 1) + 3, 2)
  found = np.asarray(bias.apply({"params": {"table": table}}))
  assert found.shape == (2, 7, 7)
  for a in range(6):
    for b in range(6):
      down, right = a // columns - b // columns, a % columns - b % columns
      at = (down + rows - 1) * (2 * columns - 1) + right + columns - 1
      np.testing.assert_array_equal(found[:, 1 + a, 1 + b], table[at])
  np.testing.assert_array_equal(found[:, 0, 1:], np.tile(table[-3, :, None], 6))
  np.testing.assert_array_equal(found[:, 1:, 0], np.tile(table[-2, :, None], 6))
  np.testing.assert_array_equal(found[:, 0, 0], table[-1])


def test_every_block_ends_with_what_the_encoder_gives():
  patches = random(2, 6, PATCH)
  blocks, params = encode(patches, options=(), every=True)
  assert len(blocks) == 2
  np.testing.assert_array_equal(blocks[-1], encode(patches, options=())[0])
  assert "norm" in params and np.abs(blocks[0] - blocks[1]).max() > 0.1


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
  """Those have a linear head and learned positions, of 1 + N, as well."""
  patch_size, published = PUBLISHED[size]
  grid = (224 // patch_size,) * 2
  model = VisionEncoder(grid=grid, options=BlockOptions(scan=True), **VIT_SIZES[size])
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
    ({"mask_ratio": 0.99}, "mask_ratio=0.99 masks 16 of 16"),
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
    classification(num_classes=2, system="mae", drop_path=rate)


def test_misspelled_hyperparameters_of_mae_get_a_hint():
  with pytest.raises(UserError, match="did you mean 'mask_ratio'"):
    resolve.build(objectives, {"name": "mae", "mask_ration": 0.6})


def test_mae_takes_no_drop_path():
  with pytest.raises(UserError, match="'mae' takes no 'drop_path'"):
    resolve.build(objectives, {"name": "mae", "drop_path": 0.1})
