"""Arrays of real networks, as each scheme draws them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import (
  BlockOptions,
  MaskedEncoder,
  Transformer,
  attention,
  decoder_of,
  dense,
  initialization,
  swin_encoder,
  vit_encoder,
)
from maskjax.models.text import MaskedLM, text_encoder
from maskjax.tokens import Text

WIDTH, PATCH, HEAD = 96, 48, 40
KEY = jax.random.key(0)
XAVIER = math.sqrt(6 / (2 * WIDTH))
JOINED = math.sqrt(6 / (4 * WIDTH))
# Of a normal distribution that is cut at 1, 2 and 3 stds.
CUT = {1: 0.5396, 2: 0.8796, 3: 0.9866}


def spread(array):
  """The std, and the largest absolute value."""
  array = np.asarray(array, np.float64)
  return math.sqrt(np.mean(array**2)), np.abs(array).max()


def assert_normal(array, std=0.02, at=None):
  """Asserts a normal distribution, cut at some stds if at all."""
  found, largest = spread(array)
  near = 4 / math.sqrt(2 * array.size)
  if at is None:
    assert found == pytest.approx(std, rel=near)
    return
  assert found == pytest.approx(CUT[at] * std, rel=near)
  assert (0.9 if at < 3 else 0.7) * at * std < largest <= 1.0001 * at * std


def assert_uniform(array, limit):
  found, largest = spread(array)
  assert found == pytest.approx(limit / math.sqrt(3), rel=3 / math.sqrt(array.size))
  assert 0.9 * limit < largest <= 1.0001 * limit


@functools.cache
def vit(scheme, scan=False):
  """Parameters of a ViT with a mask token, learned positions and a head."""
  encoder = vit_encoder(
    grid=(4, 4),
    encoder={"width": WIDTH, "depth": 3, "heads": 2},
    masked_patches="token",
    positions="learned",
    initialization=scheme,
    scan=scan,
  )
  masked = jnp.arange(16)[None] < 4
  mask = Mask.exactly(masked, num_masked=4)
  model = MaskedEncoder(encoder=encoder, size=HEAD)
  params = model.init(KEY, jnp.zeros((1, 16, PATCH)), mask)["params"]
  return jax.tree.map(np.asarray, params)


def blocks_of(params):
  """The parameters of each block."""
  found = params["encoder"]["transformer"]
  if "blocks" in found:
    return [jax.tree.map(lambda x, i=i: x[i], found["blocks"]) for i in range(3)]
  return [found[f"block_{i}"] for i in range(3)]


def test_xavier_is_of_each_layer_by_itself():
  params = vit("xavier")
  for block in blocks_of(params):
    for name in ("query", "key", "value", "out"):
      assert_uniform(block["attention"][name]["kernel"], XAVIER)
    for name in ("up", "down"):
      assert_uniform(block["mlp"][name]["kernel"], math.sqrt(6 / (5 * WIDTH)))
  assert_uniform(params["head"]["kernel"], math.sqrt(6 / (WIDTH + HEAD)))
  assert_normal(params["encoder"]["mask_token"])
  assert not params["encoder"]["embed"]["bias"].any()


def test_mae_draws_query_key_and_value_as_one_matrix():
  params = vit("mae")
  for block in blocks_of(params):
    for name in ("query", "key", "value"):
      assert_uniform(block["attention"][name]["kernel"], JOINED)
      assert not block["attention"][name]["bias"].any()
    assert_uniform(block["attention"]["out"]["kernel"], XAVIER)
  embed = params["encoder"]["embed"]
  assert_uniform(embed["kernel"], math.sqrt(6 / (PATCH + WIDTH)))
  assert_uniform(embed["bias"], PATCH**-0.5)
  assert_normal(params["encoder"]["cls"])


@pytest.mark.parametrize("scan", [False, True])
def test_beit_divides_what_ends_a_branch_by_the_number_of_its_block(scan):
  params = vit("beit", scan)
  for number, block in enumerate(blocks_of(params), start=1):
    for name in ("query", "key", "value"):
      assert_normal(block["attention"][name]["kernel"], at=1)
    assert_normal(block["mlp"]["up"]["kernel"], at=1)
    for end in (block["attention"]["out"], block["mlp"]["down"]):
      assert_normal(end["kernel"], 0.02 / math.sqrt(2 * number), at=1)
      assert not end["bias"].any()
  for name in ("mask_token", "cls", "positions"):
    assert spread(params["encoder"][name])[1] <= 0.0201
  assert_normal(params["encoder"]["positions"], at=1)
  assert_normal(params["encoder"]["embed"]["kernel"], at=1)
  assert_normal(params["head"]["kernel"], at=1)


def test_normal_ends_are_scaled_where_a_scheme_has_it():
  assert_normal(blocks_of(vit("normal"))[2]["mlp"]["down"]["kernel"])
  assert_normal(blocks_of(vit("vqkd"))[2]["mlp"]["down"]["kernel"], 0.02 / math.sqrt(6))
  block = blocks_of(vit("modernbert"))[0]
  assert_normal(block["mlp"]["up"]["kernel"], at=3)
  assert_normal(block["mlp"]["down"]["kernel"], 0.02 / math.sqrt(6), at=3)
  block = blocks_of(vit("llama"))[0]
  assert_normal(block["mlp"]["up"]["kernel"], math.sqrt(0.4 / WIDTH))
  assert_normal(block["mlp"]["down"]["kernel"], WIDTH**-0.5 / 3)


def test_what_torch_begins_by_itself():
  for scheme in ("simmim", "localmim"):
    head = vit(scheme)["head"]
    assert_uniform(head["kernel"], WIDTH**-0.5)
    assert_uniform(head["bias"], WIDTH**-0.5)
  for scheme in ("dino", "vqkd"):
    embed = vit(scheme)["encoder"]["embed"]
    assert_uniform(embed["kernel"], PATCH**-0.5)
    assert_uniform(embed["bias"], PATCH**-0.5)
  assert not vit("dino")["encoder"]["mask_token"].any()
  block = blocks_of(vit("torch_scaled"))[1]
  assert_uniform(block["mlp"]["down"]["kernel"], (4 * WIDTH) ** -0.5 / 2)
  assert_uniform(block["mlp"]["up"]["bias"], WIDTH**-0.5)
  assert_uniform(block["attention"]["query"]["kernel"], WIDTH**-0.5)
  assert not block["attention"]["query"]["bias"].any()


def test_deconvolutions_of_localmim():
  drawn = initialization.SCHEMES["localmim"].layer("deconvolution")
  assert_uniform(drawn.kernel_init(KEY, (40, 160), jnp.float32), 160**-0.5)
  assert_uniform(drawn.of_bias(40)(KEY, (1600,), jnp.float32), 1600**-0.5)


def test_maskfeat_has_biases():
  params = vit("maskfeat")
  block = blocks_of(params)[0]
  assert np.allclose(block["mlp"]["up"]["bias"], 0.02)
  assert np.allclose(block["mlp_norm"]["bias"], 0.02)
  assert not params["head"]["bias"].any()


def test_cae_is_between_mae_and_beit():
  params = vit("cae")
  assert_uniform(blocks_of(params)[0]["attention"]["key"]["kernel"], JOINED)
  assert_normal(params["encoder"]["embed"]["kernel"], at=1)
  assert spread(params["encoder"]["mask_token"])[1] <= 0.0201


@pytest.mark.parametrize(
  ("scheme", "of_values"), [("mae", XAVIER), ("crossmae", math.sqrt(6 / (3 * WIDTH)))]
)
def test_attention_to_others(scheme, of_values):
  blocks = Transformer(
    depth=1,
    heads=2,
    attends="both",
    options=BlockOptions(initialization=scheme),
  )
  x = jnp.zeros((1, 4, WIDTH))
  params = blocks.init(KEY, x, context=x)["params"]
  layers = params["block_0"]["cross_attention"]
  assert_uniform(layers["query"]["kernel"], XAVIER)
  for name in ("key", "value"):
    assert_uniform(layers[name]["kernel"], of_values)
  assert_uniform(params["block_0"]["attention"]["value"]["kernel"], JOINED)


def test_the_last_mask_token_of_latent_mim_is_0():
  draw = initialization.SCHEMES["latent_mim"].mask_token
  first, last = draw(KEY, (1, 2, 2000), jnp.float32)[0]
  assert_normal(first)
  assert not last.any()


@pytest.mark.parametrize("scheme", ["simmim", "torch", "mae"])
def test_the_same_is_drawn_on_tpu(monkeypatch, scheme):
  blocks = Transformer(
    depth=2, heads=2, options=BlockOptions(initialization=scheme, mlp_ratio=1.0)
  )
  x = jnp.zeros((1, 4, 16))
  expected = blocks.init(KEY, x)
  for module in (attention, dense):
    monkeypatch.setattr(module, "for_tpu", lambda: True)
  jax.tree.map(np.testing.assert_array_equal, blocks.init(KEY, x), expected)


def test_remat_and_scan_draw_by_the_same_rule():
  def ends(**options):
    options = BlockOptions(initialization="beit", **options)
    blocks = Transformer(depth=2, heads=2, options=options, before=3)
    return blocks.init(KEY, jnp.zeros((1, 4, WIDTH)))["params"]

  found = ends(remat="full")["block_1"]["mlp"]["down"]["kernel"]
  assert_normal(found, 0.02 / math.sqrt(10), at=1)
  jax.tree.map(np.testing.assert_array_equal, ends(), ends(remat="full"))
  found = ends(scan=True)["blocks"]["mlp"]["down"]["kernel"]
  assert_normal(found[1], 0.02 / math.sqrt(10), at=1)


def test_swin():
  encoder = swin_encoder(
    image_size=32,
    patch_size=4,
    encoder={"width": WIDTH, "depths": (1, 1), "heads": (2, 2), "window": 4},
  )
  params = jax.jit(encoder.init)(KEY, jnp.zeros((1, 64, PATCH)))["params"]
  assert_uniform(params["embed"]["kernel"], PATCH**-0.5)
  assert_normal(params["merging_1"]["dense"]["kernel"])
  block = params["stage_0_block_0"]
  assert_normal(block["attention"]["out"]["kernel"])
  assert_normal(block["mlp"]["down"]["kernel"])
  assert_normal(block["relative"]["table"])


@pytest.mark.parametrize(("scheme", "at"), [("bert", 2), ("normal", None)])
def test_text(scheme, at):
  encoder = text_encoder(
    vocab_size=500,
    length=32,
    encoder={"width": WIDTH, "depth": 1, "heads": 2},
    initialization=scheme,
  )
  row = jnp.zeros((1, 8), jnp.int32)
  text = Text(token=row, segment=row + 1, position=row, word=row)
  params = jax.jit(MaskedLM(encoder=encoder).init)(KEY, text, row[:, :2])["params"]
  for table in ("tokens", "positions"):
    assert_normal(params["encoder"][table], at=at)
  block = params["encoder"]["transformer"]["block_0"]
  assert_normal(block["attention"]["out"]["kernel"], at=at)
  assert_normal(params["head"]["dense"]["kernel"], at=at)


def test_a_decoder_is_drawn_as_its_encoder():
  encoder = vit_encoder(
    grid=(4, 4),
    encoder={"width": WIDTH, "depth": 1, "heads": 2},
    initialization="simmim",
  )
  shape = {"width": WIDTH, "depth": 1, "heads": 2}
  decoder = decoder_of(encoder, shape, patch_dim=HEAD)
  mask = Mask.exactly(jnp.arange(16)[None] < 4, num_masked=4)
  inputs = jnp.zeros((1, 13, WIDTH)), mask, False
  params = decoder.init(KEY, *inputs)["params"]
  assert_normal(params["embed"]["kernel"], at=1)
  assert_uniform(params["head"]["kernel"], WIDTH**-0.5)
  assert spread(params["mask_token"])[1] <= 0.0201


def test_each_scheme_is_known_by_its_name():
  with pytest.raises(UserError, match="initialization='xaver': .*'xavier'"):
    BlockOptions(initialization="xaver")
  for name, scheme in initialization.SCHEMES.items():
    assert scheme.further is None or scheme.further in initialization.SCHEMES, name
