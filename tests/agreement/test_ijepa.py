"""I-JEPA's encoder against `IJepaModel` of transformers, weights both ways."""

import functools

import jax
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken

from maskjax import config as configs
from maskjax import objectives, resolve
from maskjax import workdir as workdirs
from maskjax.convert import ijepa as layout
from maskjax.convert import safetensors, weights
from maskjax.errors import UserError
from maskjax.objectives import Variables
from maskjax.tokens import sincos

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
  "image_size": 12,
  "patch_size": 2,
  "num_channels": 3,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 32,
  "layer_norm_eps": 1e-3,  # large, so that it shows
}


@functools.cache
def theirs():
  """A tiny model of theirs, every parameter of it random."""
  config = transformers.IJepaConfig(**SMALL)
  model = transformers.IJepaModel(config, add_pooling_layer=False).eval()
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
      noise = 0.3 * rng.normal(size=tuple(parameter.shape))
      parameter.copy_(torch.from_numpy(center + noise))
  return model


def features_of(model):
  with torch.no_grad():
    images = torch.from_numpy(random(3, 12, 12, 3).transpose(0, 3, 1, 2).copy())
    return model(images).last_hidden_state.numpy()


def test_imported_features_are_theirs_and_every_bit_comes_back(tmp_path):
  theirs().save_pretrained(tmp_path / "theirs")
  config = configs.load("configs/image/teacher.py:ijepa_h14")
  config.objective.dtype = "float32"
  weights.import_weights(tmp_path / "theirs", config, tmp_path / "run")
  config = workdirs.read_config(tmp_path / "run")
  _, params = workdirs.checkpoints(tmp_path / "run", config).restore_weights()
  objective = resolve.build(objectives, config.objective)
  features = jax.jit(objective.features)(
    Variables(params), {"image": random(3, 12, 12, 3)}
  )
  assert_close(features, features_of(theirs()))
  weights.export_weights(tmp_path / "run", tmp_path / "ours")
  _, before = safetensors.read(tmp_path / "theirs")
  _, after = safetensors.read(tmp_path / "ours")
  assert before.keys() == after.keys()
  for name, tensor in before.items():
    np.testing.assert_array_equal(after[name], tensor)


def test_the_encoder_of_a_run_becomes_theirs(tmp_path):
  config = configs.load("configs/image/ijepa.py:small")
  config.objective.update(
    image_size=12,
    patch_size=2,
    channels=3,
    encoder=dict(width=16, depth=2, heads=2),
    predictor=dict(width=8, depth=1, heads=2),
  )
  objective = resolve.build(objectives, config.objective)
  shapes = jax.eval_shape(objective.init, jax.random.key(0), objective.batch_shapes(2))
  params = shaken(shapes.params)
  with workdirs.opened(config, tmp_path / "run") as opened:
    checkpoints = workdirs.checkpoints(opened.folder, config)
    checkpoints.save_weights(0, params)
    checkpoints.close()
  weights.export_weights(tmp_path / "run", tmp_path / "ours")
  loaded = transformers.IJepaModel.from_pretrained(
    tmp_path / "ours", add_pooling_layer=False
  )
  features = jax.jit(objective.features)(
    Variables(params), {"image": random(3, 12, 12, 3)}
  )
  assert_close(features, features_of(loaded.eval()))
  table = loaded.embeddings.position_embeddings.detach().numpy()[0]
  np.testing.assert_array_equal(table, sincos((6, 6), 16).astype(np.float32))


def test_defaults_are_those_of_transformers():
  config = transformers.IJepaConfig().to_dict()
  assert {key: config[key] for key in layout.DEFAULTS} == layout.DEFAULTS


@pytest.mark.parametrize(
  "change, complaint",
  [
    ({"qkv_bias": False}, "qkv_bias=False: only True"),
    ({"patch_size": 4}, "tensors do not fit the config"),
  ],
)
def test_what_cannot_be_followed_is_refused(tmp_path, change, complaint):
  theirs().save_pretrained(tmp_path)
  config, tensors = safetensors.read(tmp_path)
  with pytest.raises(UserError, match=complaint):
    layout.from_hf({**config, **change}, tensors)
