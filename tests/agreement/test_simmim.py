"""SimMIM's three encoders against transformers, and weights both ways."""

import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image.simmims import ENCODERS, KEY, make_batch

from maskjax import config as configs
from maskjax.convert import safetensors, swin_mim, swinv2_mim, vit_mim, weights
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import stack_blocks
from maskjax.objectives import Variables
from maskjax.systems import simmim
from maskjax.tokens import unpatchify

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONVERTERS = {"vit": vit_mim, "swin": swin_mim, "swinv2": swinv2_mim}

# The sides of the grid of patches and of the windows; the second stage of a Swin has
# half the grid's.
CASES = {
  "vit": ("vit", 4, None),
  "swin": ("swin", 4, 2),
  "swin, windows that do not divide": ("swin", 8, 3),
  "swinv2": ("swinv2", 4, 2),
  "swinv2, windows that do not divide, then larger than the grid": ("swinv2", 4, 3),
}


@functools.cache
def make_theirs(encoder_type, side, window):
  """A tiny model of theirs with patches of 2 x 2, every parameter of it random."""
  common = {"image_size": 2 * side, "patch_size": 2, "num_channels": 3}
  kind = {"vit": "ViT", "swin": "Swin", "swinv2": "Swinv2"}[encoder_type]
  if encoder_type == "vit":
    shape = {
      "encoder_stride": 2,
      "hidden_size": 8,
      "num_hidden_layers": 2,
      "num_attention_heads": 2,
      "intermediate_size": 16,
      "layer_norm_eps": 1e-3,  # large, so that it shows
    }
  else:
    shape = {
      "encoder_stride": 4,
      "embed_dim": 8,
      "depths": [2, 1],
      "num_heads": [2, 4],
      "window_size": window,
      "mlp_ratio": 2.0,
    }
  config = getattr(transformers, f"{kind}Config")(**common, **shape)
  model = getattr(transformers, f"{kind}ForMaskedImageModeling")(config)
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = rng.normal(size=tuple(parameter.shape))
      center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
      parameter.copy_(torch.from_numpy(center + 0.3 * noise))
  return model.eval()


@functools.cache
def written(case):
  """What they write of a model of theirs: its config and its tensors."""
  with tempfile.TemporaryDirectory() as folder:
    make_theirs(*CASES[case]).save_pretrained(folder)
    return safetensors.read(folder)


def run_theirs(model, images, masked):
  """Reconstructions [B, H, W, C] and the loss."""
  with torch.no_grad():
    out = model(
      torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
      bool_masked_pos=torch.from_numpy(np.array(masked)),
    )
  return out.reconstruction.numpy().transpose(0, 2, 3, 1), out.loss.item()


@pytest.mark.parametrize("case", CASES)
def test_predictions_and_loss_are_those_of_transformers(case, tmp_path):
  encoder_type, side, _ = CASES[case]
  converter = CONVERTERS[encoder_type]
  images, model = random(3, 2 * side, 2 * side, 3), make_theirs(*CASES[case])
  # Not in units, so that each position shows.
  halves = np.tile(np.arange(side**2) < side**2 // 2, (3, 1))
  masked = np.random.default_rng(1).permuted(halves, axis=1)
  mask = Mask.exactly(jnp.asarray(masked), num_masked=side**2 // 2)
  hyperparameters, params = converter.from_hf(*written(case))
  objective = simmim(**hyperparameters, mask_patch_size=2)

  @jax.jit
  def run(params, batch):
    patches = objective.patches(batch)
    ours = objective.apply(Variables(params), patches, mask, True)
    loss = objective.loss_of_mask(Variables(params), batch, mask).value()
    return unpatchify(ours, grid=(side, side), patch_size=2), loss

  ours, our_loss = run(params, {"image": jnp.asarray(images)})
  predictions, loss = run_theirs(model, images, masked)
  assert_close(ours, predictions)
  assert abs(float(our_loss) - loss) <= 1e-5 * abs(loss)

  # And another model, from our files into theirs.
  params = jax.tree.map(lambda leaf: leaf[..., ::-1], params)
  hyperparameters["mask_patch_size"] = 2
  config, tensors = converter.to_hf(hyperparameters, params)
  safetensors.write(tmp_path / "ours", config, tensors)
  loaded, report = type(model).from_pretrained(
    tmp_path / "ours", output_loading_info=True
  )
  assert not any(report.values())
  ours, our_loss = run(params, {"image": jnp.asarray(images)})
  predictions, loss = run_theirs(loaded.eval(), images, masked)
  assert_close(ours, predictions)
  assert abs(float(our_loss) - loss) <= 1e-5 * abs(loss)


@pytest.mark.parametrize("case", ["vit", "swin", "swinv2"])
def test_their_configs_come_back(case):
  config, _ = written(case)
  hyperparameters, params = CONVERTERS[case].from_hf(config, written(case)[1])
  hyperparameters["mask_patch_size"] = 2
  back, _ = CONVERTERS[case].to_hf(hyperparameters, params)
  assert {key: config[key] for key in back} == back
  defaults = type(make_theirs(*CASES[case]).config)().to_dict()
  known = (vit_mim if case == "vit" else swin_mim).DEFAULTS
  assert {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in defaults.items()
    if key in known
  } == known


# Weights


def settings_of(encoder_type):
  """Hyperparameters that transformers has a word for."""
  encoder = dict(ENCODERS[encoder_type])
  if encoder_type == "vit":
    encoder |= vit_mim.OPTIONS
  return {
    "image_size": 12,
    "channels": 3,
    "patch_size": 2,
    "encoder_type": encoder_type,
    "encoder": encoder,
    "norm_epsilon": 1e-5,
    "mlp_ratio": 4.0,
    "mask_patch_size": 4,
  }


def random_params(encoder_type):
  objective = simmim(**settings_of(encoder_type))
  return shaken(jax.eval_shape(objective.init, KEY, make_batch()).params)


def assert_same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize("encoder_type", CONVERTERS)
def test_workdirs_go_to_hugging_face_and_back_bit_for_bit(encoder_type, tmp_path):
  hyperparameters, params = settings_of(encoder_type), random_params(encoder_type)
  config, tensors = CONVERTERS[encoder_type].to_hf(hyperparameters, params)
  safetensors.write(tmp_path / "hf", config, tensors)
  mine = configs.load("configs/image/simmim.py:small").copy_and_resolve_references()
  mine.objective.mask_patch_size = 4
  weights.import_weights(tmp_path / "hf", mine, tmp_path / "workdir")
  weights.export_weights(tmp_path / "workdir", tmp_path / "again")
  assert config["model_type"] == encoder_type
  again_config, again = safetensors.read(tmp_path / "again")
  assert again_config == config
  assert_same(again, tensors)
  found, back = CONVERTERS[encoder_type].from_hf(config, tensors)
  assert found | {"mask_patch_size": 4} == hyperparameters
  assert_same(back, params)
  if encoder_type == "vit":  # which is what an objective is that does not say
    scanned = {k: v for k, v in hyperparameters.items() if k != "encoder_type"}
    _, same = vit_mim.to_hf({**scanned, "scan": True}, stack_blocks(params))
    assert_same(same, tensors)


def test_what_old_files_hold_beside_the_weights_does_not_matter():
  config, tensors = written("swin")
  index = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"
  _, params = swin_mim.from_hf(config, {**tensors, index: np.zeros((4, 4), np.int64)})
  assert_same(params, swin_mim.from_hf(config, tensors)[1])


@pytest.mark.parametrize(
  ("case", "change", "message"),
  [
    ("vit", {"encoder_stride": 4}, "encoder_stride=4: expected patch_size=2"),
    ("vit", {"image_size": [8, 4]}, "image_size=8x4"),
    ("vit", {"qkv_bias": False}, "qkv_bias=False"),
    ("swin", {"encoder_stride": 8}, "encoder_stride=8: expected 4"),
    ("swin", {"use_absolute_embeddings": True}, "use_absolute_embeddings=True"),
    ("swin", {"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06"),
    ("swin", {"window_size": 3}, r"misshapen \(swin.* expected \[25, 2\], found \[9"),
    ("swin", {"depths": 2}, "depths=2: expected a list"),
    ("swin", {"depths": [2, "1"]}, "depths='1': expected int"),
    ("swinv2", {"pretrained_window_sizes": [8, 8]}, "pretrained_window_sizes=.8, 8"),
    ("swinv2", {"model_type": "swin"}, "model_type='swin': expected 'swinv2'"),
  ],
)
def test_from_hf_names_the_bad_key(case, change, message):
  config, tensors = written(case)
  with pytest.raises(UserError, match=message):
    CONVERTERS[case].from_hf(config | change, tensors)


@pytest.mark.parametrize(
  ("encoder_type", "change", "message"),
  [
    ("vit", {"encoder": ENCODERS["vit"]}, "encoder.positions='relative'.*'learned'"),
    ("vit", {"image_size": (12, 8)}, "grid=6x4"),
    ("swin", {"norm_epsilon": 1e-6}, "layer_norm_eps=1e-06: only 1e-05"),
    ("swin", {"encoder": {**ENCODERS["swin"], "norm_every": 1}}, "norm_every=1"),
    ("swinv2", {"mlp_ratio": 0.3}, "mlp_ratio=0.3: expected a whole multiple"),
  ],
)
def test_to_hf_names_what_it_cannot_write(encoder_type, change, message):
  hyperparameters = {**settings_of(encoder_type), **change}
  with pytest.raises(UserError, match=message):
    CONVERTERS[encoder_type].to_hf(hyperparameters, {})
