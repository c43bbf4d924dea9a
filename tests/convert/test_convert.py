"""Weights of other libraries: folders of safetensors, and MAE's of transformers."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.convert import safetensors, vit_mae
from maskjax.errors import UserError
from maskjax.models import stack_blocks
from maskjax.systems import mae
from maskjax.tokens import sincos

HYPERPARAMETERS = {
  "image_size": 16,
  "channels": 3,
  "patch_size": 4,
  "encoder": {"width": 32, "depth": 2, "heads": 4},
  "decoder": {"width": 16, "depth": 2, "heads": 2},
  "mask_ratio": 0.75,
  "norm_pix_loss": True,
  "norm_epsilon": 1e-6,
  "mlp_ratio": 4.0,
}


def random_params(hyperparameters, **more):
  """Every parameter random, in the tree that the objective itself makes."""
  objective = mae(**hyperparameters, **more)
  batch = {"image": jnp.zeros((1, *objective.patches.shape))}
  shapes = jax.eval_shape(objective.init, jax.random.key(0), batch).params
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )


@pytest.fixture(name="params", scope="module")
def params_fixture():
  return random_params(HYPERPARAMETERS)


@pytest.fixture(name="theirs")
def theirs_fixture(params):
  """A config and tensors to spoil."""
  return vit_mae.to_hf(HYPERPARAMETERS, params)


def assert_same(tree, other):
  """Equal in structure, type and every bit."""
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
    assert one.dtype == two.dtype and one.shape == two.shape
    assert one.tobytes() == two.tobytes()


# Folders


@pytest.mark.parametrize("max_shard_bytes", [10**9, 64, 1])
def test_folder_gives_back_every_bit(tmp_path, max_shard_bytes):
  rng = np.random.default_rng(0)
  tensors = {
    "transposed": rng.normal(size=(3, 5)).astype(np.float32).T,
    "scalar": np.float32(3.0).reshape(()),
    "empty": np.zeros((0, 4), np.float32),
    "odd": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    "half": rng.normal(size=7).astype(np.float16),
    "brain": rng.normal(size=7).astype(jnp.bfloat16),
    "ids": np.arange(4),
  }
  config = {"model_type": "x", "name": "ä", "sizes": [1, 2], "on": True}
  safetensors.write(
    tmp_path / "deep" / "er", config, tensors, max_shard_bytes=max_shard_bytes
  )
  found_config, found = safetensors.read(tmp_path / "deep" / "er")
  assert found_config == config
  assert_same(found, tensors)
  files = sorted(os.listdir(tmp_path / "deep" / "er"))
  if max_shard_bytes == 10**9:
    assert files == ["config.json", "model.safetensors"]
  else:
    assert "model.safetensors.index.json" in files
    shards = {64: 3, 1: 7}[max_shard_bytes]
    assert f"model-00001-of-{shards:05d}.safetensors" in files
  # Readable by whoever may read the folder's other files.
  modes = {(tmp_path / "deep" / "er" / file).stat().st_mode for file in files}
  assert len(modes) == 1
  assert os.listdir(tmp_path / "deep") == ["er"]


def test_write_fills_an_empty_folder_but_no_other(tmp_path):
  (tmp_path / "empty").mkdir()
  safetensors.write(tmp_path / "empty", {}, {"x": np.zeros(2)})
  before = sorted(os.listdir(tmp_path / "empty"))
  with pytest.raises(UserError, match="empty: exists already"):
    safetensors.write(tmp_path / "empty", {}, {"y": np.zeros(2)})
  (tmp_path / "file").write_text("mine")
  with pytest.raises(UserError, match="file: exists already"):
    safetensors.write(tmp_path / "file", {}, {"y": np.zeros(2)})
  assert sorted(os.listdir(tmp_path / "empty")) == before
  assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
  "config, tensors",
  [({"a": object()}, {"x": np.zeros(2)}), ({}, {"x": np.array(["text"])})],
)
def test_write_that_fails_leaves_nothing(tmp_path, config, tensors):
  with pytest.raises(UserError, match="out: cannot write"):
    safetensors.write(tmp_path / "out", config, tensors)
  assert os.listdir(tmp_path) == []


def test_write_refuses_an_empty_shard(tmp_path):
  with pytest.raises(UserError, match="max_shard_bytes=0"):
    safetensors.write(tmp_path / "out", {}, {}, max_shard_bytes=0)


def spoil_index(folder, change):
  path = folder / "model.safetensors.index.json"
  index = json.loads(path.read_text())
  change(index["weight_map"])
  path.write_text(json.dumps(index))


def truncate(path, size):
  path.write_bytes(path.read_bytes()[:size])


FIRST = "model-00001-of-00002.safetensors"

BAD_FOLDERS = {
  "config missing": (lambda f: (f / "config.json").unlink(), "no file .*config.json"),
  "config broken": (lambda f: (f / "config.json").write_text("{"), "config.json: can"),
  "config a list": (lambda f: (f / "config.json").write_text("[]"), "config.json: exp"),
  "shard missing": (lambda f: (f / FIRST).unlink(), f"no file .*{FIRST}"),
  "shard truncated": (lambda f: truncate(f / FIRST, -4), f"{FIRST}: cannot read"),
  "shard empty": (lambda f: truncate(f / FIRST, 0), f"{FIRST}: cannot read"),
  "index broken": (
    lambda f: truncate(f / "model.safetensors.index.json", 9),
    "index.json: cannot read",
  ),
  "index without a map": (
    lambda f: (f / "model.safetensors.index.json").write_text("{}"),
    "index.json: expected a 'weight_map'",
  ),
  "tensor not in its shard": (
    lambda f: spoil_index(f, lambda m: m.update(b=m["a"])),
    f"{FIRST}: no tensor 'b', which model.safetensors.index.json",
  ),
  "shard outside the folder": (
    lambda f: spoil_index(f, lambda m: m.update(b=f"../{f.name}/{FIRST}")),
    "index.json: '../",
  ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_read_names_the_bad_file(tmp_path, case):
  spoil, message = BAD_FOLDERS[case]
  tensors = {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}
  safetensors.write(tmp_path / "in", {}, tensors, max_shard_bytes=16)
  spoil(tmp_path / "in")
  with pytest.raises(UserError, match=message) as caught:
    safetensors.read(tmp_path / "in")
  assert "\n" not in str(caught.value)


def test_read_names_what_is_not_there(tmp_path):
  with pytest.raises(UserError, match=r"no folder .*absent"):
    safetensors.read(tmp_path / "absent")
  (tmp_path / "config.json").write_text("{}")
  (tmp_path / "pytorch_model.bin").write_bytes(b"")
  with pytest.raises(UserError, match=r"no file .*model.safetensors.*only"):
    safetensors.read(tmp_path)


# ViT-MAE


@pytest.mark.parametrize(
  "change",
  [
    {},
    {"image_size": (8, 24), "channels": 1},
    {"norm_pix_loss": False, "mask_ratio": 0.6, "norm_epsilon": 1e-12},
    {"mlp_ratio": 2.5},
  ],
)
def test_params_come_back_bit_for_bit(tmp_path, change):
  hyperparameters = HYPERPARAMETERS | change
  params = random_params(hyperparameters)
  config, tensors = vit_mae.to_hf(hyperparameters, params)
  safetensors.write(tmp_path / "out", config, tensors, max_shard_bytes=20_000)
  found, back = vit_mae.from_hf(*safetensors.read(tmp_path / "out"))
  assert found == hyperparameters
  assert_same(back, params)
  again_config, again = vit_mae.to_hf(found, back)
  assert again_config == config
  assert_same(again, tensors)


def test_scanned_blocks_make_the_same_tensors(params):
  scanned = random_params(HYPERPARAMETERS, scan=True)
  stacked = stack_blocks(params)
  assert jax.tree.structure(stacked) == jax.tree.structure(scanned)
  config, tensors = vit_mae.to_hf({**HYPERPARAMETERS, "scan": True}, stacked)
  expected_config, expected = vit_mae.to_hf(HYPERPARAMETERS, params)
  assert config == expected_config
  assert_same(tensors, expected)


def test_hyperparameters_may_lean_on_the_objectives_defaults():
  least = {"image_size": 8, "channels": 1, "patch_size": 4, "encoder": "Ti"}
  params = random_params(least)
  found, back = vit_mae.from_hf(*vit_mae.to_hf(least, params))
  assert found["encoder"] == {"width": 192, "depth": 12, "heads": 3}
  assert found["decoder"] == {"width": 512, "depth": 8, "heads": 16}
  assert found["norm_epsilon"] == mae(**least).model.encoder.norm_epsilon
  assert_same(back, params)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_becomes_float32_without_loss(theirs, dtype):
  config, tensors = theirs
  halves = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
  _, params = vit_mae.from_hf(config, halves)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
  _, back = vit_mae.to_hf(HYPERPARAMETERS, params)
  assert_same(back["decoder.mask_token"].astype(dtype), halves["decoder.mask_token"])


QUERY = "vit.encoder.layer.0.attention.attention.query.weight"
POSITIONS = "vit.embeddings.position_embeddings"

BAD_TENSORS = {
  "missing": (lambda t: t.pop(QUERY), rf"tensors do not fit .*1 missing \({QUERY}\)"),
  "unknown": (lambda t: t.update(z=t[QUERY]), r"1 unknown \(z\)"),
  "misshapen": (
    lambda t: t.update({QUERY: t[QUERY][:5]}),
    rf"1 misshapen \({QUERY}: expected \[32, 32\], found \[5, 32\]\)",
  ),
  "many": (
    lambda t: [t.pop(n) for n in list(t) if ".layer.1." in n],
    r"16 missing \(vit.*, vit.*, vit.*, \.\.\.\)",
  ),
  "encoder only": (
    lambda t: [t.pop(n) for n in list(t) if n.startswith("decoder.")],
    "the decoder is missing",
  ),
  "integers": (lambda t: t.update({QUERY: t[QUERY].astype(int)}), f"{QUERY}.* int64"),
  "learned positions": (
    lambda t: t.update({POSITIONS: t[POSITIONS] + np.float32(1e-4)}),
    f"{POSITIONS}' is 0.0001 off the sine-cosine table",
  ),
  "class token's position": (
    lambda t: t["decoder.decoder_pos_embed"].__setitem__((0, 0, 0), 1.0),
    "decoder.decoder_pos_embed' is 1 off",
  ),
  "no number": (lambda t: t[POSITIONS].__setitem__((0, 3, 0), np.nan), "is nan off"),
  "positions never made": (lambda t: t[POSITIONS].fill(0.0), "it is all zeros"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_from_hf_names_the_bad_tensor(theirs, case):
  spoil, message = BAD_TENSORS[case]
  config, tensors = theirs
  spoil(tensors)
  with pytest.raises(UserError, match=message):
    vit_mae.from_hf(config, tensors)


@pytest.mark.parametrize(
  "change",
  [
    {"model_type": "vit"},
    {"hidden_act": "relu"},
    {"qkv_bias": False},
    {"hidden_dropout_prob": 0.1},
    {"attention_probs_dropout_prob": 0.1},
    {"decoder_intermediate_size": 32},
    {"image_size": [16, 16, 16]},
    {"image_size": "16"},
    {"image_size": 18, "patch_size": 4},
    {"patch_size": [4, 2]},
    {"num_hidden_layers": 0},
    {"num_channels": None},
    {"mask_ratio": "0.75"},
    {"mask_ratio": 1.0},
    {"norm_pix_loss": 1},
  ],
)
def test_from_hf_names_the_bad_key(theirs, change):
  config, tensors = theirs
  with pytest.raises(UserError, match=next(iter(change))):
    vit_mae.from_hf(config | change, tensors)


def test_to_hf_names_what_it_cannot_write(params):
  with pytest.raises(UserError, match="patch_size=4x2"):
    vit_mae.to_hf(HYPERPARAMETERS | {"patch_size": (4, 2)}, params)
  with pytest.raises(UserError, match=r"params do not .*missing \(encoder/transformer"):
    deeper = {"width": 32, "depth": 3, "heads": 4}
    vit_mae.to_hf(HYPERPARAMETERS | {"encoder": deeper}, params)
  with pytest.raises(UserError, match=r"decoder/head/bias: expected \[48\], found"):
    head = params["decoder"]["head"] | {"bias": np.zeros(3, np.float32)}
    spoilt = params | {"decoder": params["decoder"] | {"head": head}}
    vit_mae.to_hf(HYPERPARAMETERS, spoilt)
  with pytest.raises(UserError, match="encoder/cls' is float64"):
    encoder = params["encoder"] | {"cls": np.zeros((1, 1, 32))}
    vit_mae.to_hf(HYPERPARAMETERS, params | {"encoder": encoder})


def test_reading_needs_no_torch(tmp_path, theirs):
  config, tensors = theirs
  tensors["decoder.mask_token"] = tensors["decoder.mask_token"].astype(jnp.bfloat16)
  safetensors.write(tmp_path / "out", config, tensors)
  program = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from maskjax.convert import safetensors, vit_mae
hyperparameters, params = vit_mae.from_hf(*safetensors.read(sys.argv[1]))
safetensors.write(sys.argv[1] + "2", *vit_mae.to_hf(hyperparameters, params))
print(hyperparameters["encoder"]["width"])
"""
  done = subprocess.run(
    [sys.executable, "-c", program, tmp_path / "out"],
    check=True,
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )
  assert done.stdout == "32\n"


# Against transformers itself


@pytest.fixture(name="transformers", scope="module")
def transformers_fixture():
  pytest.importorskip("torch")
  return pytest.importorskip("transformers")


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_their_files_come_back_bit_for_bit(tmp_path, transformers, max_shard_size):
  import torch

  config = transformers.ViTMAEConfig(
    image_size=16,
    patch_size=4,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
  )
  model = transformers.ViTMAEForPreTraining(config)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.normal_()
    for table in (
      model.vit.embeddings.position_embeddings,
      model.decoder.decoder_pos_embed,
    ):
      table.zero_()
      table[0, 1:] = torch.from_numpy(sincos((4, 4), table.shape[-1]))
  model.save_pretrained(tmp_path / "in", max_shard_size=max_shard_size)
  assert (tmp_path / "in" / "model.safetensors").exists() == (max_shard_size == "1GB")
  found_config, tensors = safetensors.read(tmp_path / "in")
  hyperparameters, params = vit_mae.from_hf(found_config, tensors)
  back_config, back = vit_mae.to_hf(hyperparameters, params)

  # transformers 5 writes another name than it and 4 read for these blocks.
  def usual(name):
    return name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers.")

  assert_same(back, {usual(name): tensor for name, tensor in tensors.items()})
  ignored = {"initializer_range", "transformers_version"}
  assert {k: v for k, v in found_config.items() if k not in ignored} == back_config

  # And back into transformers, from our files.
  safetensors.write(tmp_path / "out", back_config, back, max_shard_bytes=30_000)
  loaded, report = transformers.ViTMAEForPreTraining.from_pretrained(
    tmp_path / "out", output_loading_info=True
  )
  assert not any(report.values())
  for name, tensor in model.state_dict().items():
    assert torch.equal(loaded.state_dict()[name], tensor), name
