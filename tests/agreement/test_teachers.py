"""Imported teachers against CLIP, DINO's ViT and DINOv2 of transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random

from maskjax import config as configs
from maskjax import workdir as workdirs
from maskjax.convert import clip, clip_vision_model, dinov2, safetensors, vit, weights
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import stack_blocks
from maskjax.objectives import Variables, teachers
from maskjax.objectives import vit as plain_vit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
  "hidden_size": 16,
  "num_hidden_layers": 3,
  "num_attention_heads": 2,
  "image_size": 16,
  "patch_size": 4,
  # Large, so that it shows.
  "layer_norm_eps": 1e-3,
}
TEXT = {
  "hidden_size": 8,
  "num_hidden_layers": 1,
  "num_attention_heads": 1,
  "intermediate_size": 8,
  "vocab_size": 9,
  "bos_token_id": 1,
  "eos_token_id": 2,
}
CONVERTERS = {
  "clip": clip,
  "clip_vision_model": clip_vision_model,
  "dinov2": dinov2,
  "vit": vit,
}


def make_theirs(kind):
  """A tiny model of theirs, every parameter of it random, and what sees images."""
  wide = {**SMALL, "intermediate_size": 40}
  if kind == "clip":
    config = transformers.CLIPConfig(vision_config=wide, text_config=TEXT)
    model = transformers.CLIPModel(config)
  elif kind == "clip_vision_model":
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**wide))
  elif kind == "dinov2":
    model = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, mlp_ratio=2))
  else:
    model = transformers.ViTModel(transformers.ViTConfig(**wide))
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
      noise = rng.normal(size=tuple(parameter.shape))
      parameter.copy_(torch.as_tensor(center + 0.3 * noise))
  return model.eval(), model.vision_model if kind == "clip" else model


@functools.cache
def theirs(kind):
  """Their model's outputs for two images: each block, the end, and attention."""
  _, tower = make_theirs(kind)
  tower.set_attn_implementation("eager")
  with torch.no_grad():
    pixels = torch.from_numpy(images().transpose(0, 3, 1, 2).copy())
    out = tower(pixels, output_hidden_states=True, output_attentions=True)
    end = out.last_hidden_state
    if kind.startswith("clip"):
      end = tower.post_layernorm(end)  # theirs is of the class token alone
  tokens = [state.numpy() for state in out.hidden_states[1:]]
  return tokens, end.numpy(), out.attentions[-1][:, :, 0, 1:].mean(dim=1).numpy()


def images():
  return random(2, 16, 16, 3)


@pytest.fixture(name="folders", scope="module")
def folders_fixture(tmp_path_factory):
  """A folder of each model, as they write it."""
  root = tmp_path_factory.mktemp("theirs")
  for kind in CONVERTERS:
    make_theirs(kind)[0].save_pretrained(root / kind)
  return root


@pytest.mark.parametrize("kind", CONVERTERS)
def test_features_layers_and_attention(folders, kind):
  hyperparameters, params = CONVERTERS[kind].from_hf(*safetensors.read(folders / kind))
  objective, batch = plain_vit(**hyperparameters), {"image": jnp.asarray(images())}
  tokens, end, attention = theirs(kind)
  variables = Variables(params)
  layers = jax.jit(functools.partial(objective.layers, attention=True))(
    variables, batch
  )
  assert_close(layers.tokens, tokens)
  assert_close(layers.attention, attention)
  assert_close(jax.jit(objective.features)(variables, batch), end[:, 1:])


def test_features_that_clip_projects(folders):
  """Of patches, as VQ-KD predicts them; theirs projects the class token alone."""
  hyperparameters, params = clip.from_hf(*safetensors.read(folders / "clip"))
  objective = plain_vit(**hyperparameters, projection=512)
  features = jax.jit(objective.features)(Variables(params), {"image": images()})
  with torch.no_grad():
    end = torch.from_numpy(theirs("clip")[1][:, 1:])
    expected = make_theirs("clip")[0].visual_projection(end)
  assert_close(features, expected.numpy())


@pytest.mark.parametrize("folder", ["clip", "clip_vision_model"])
def test_a_projection_comes_back(folders, tmp_path, folder):
  config = configs.load("configs/image/teacher.py:clip_b16_projected")
  if folder == "clip_vision_model":  # which has none
    with pytest.raises(UserError, match=r"parameter project/kernel has the shape none"):
      weights.import_weights(folders / folder, config, tmp_path / "run")
    return
  weights.import_weights(folders / folder, config, tmp_path / "run")
  weights.export_weights(tmp_path / "run", tmp_path / "out")
  model = transformers.CLIPVisionModelWithProjection
  loaded, report = model.from_pretrained(tmp_path / "out", output_loading_info=True)
  assert not any(report[key] for key in ("missing_keys", "unexpected_keys"))
  kept = make_theirs("clip")[0].visual_projection.weight
  assert torch.equal(loaded.visual_projection.weight, kept)


@pytest.mark.parametrize("scan", [False, True])
def test_first_blocks_alone(folders, scan):
  """For its first two blocks, a teacher of three runs no third one."""
  hyperparameters, params = vit.from_hf(*safetensors.read(folders / "vit"))
  objective, batch = plain_vit(**hyperparameters, scan=scan), {"image": images()}
  variables = Variables(stack_blocks(params) if scan else params)

  def compiled(depth):
    layers = jax.jit(functools.partial(objective.layers, depth=depth))
    return layers.lower(variables, batch).compile()

  two, three = compiled(2), compiled(3)
  assert_close(two(variables, batch).tokens, theirs("vit")[0][:2])
  if not scan:  # whose costs are counted for one turn of the loop
    assert two.cost_analysis()["flops"] < 0.72 * three.cost_analysis()["flops"]


def test_visible_patches_alone(folders):
  """Their embeddings of the visible patches, through their blocks."""
  _, tower = make_theirs("vit")
  masked = np.random.default_rng(2).permuted([[True] * 10 + [False] * 6] * 2, axis=1)
  with torch.no_grad():
    x = tower.embeddings(torch.from_numpy(images().transpose(0, 3, 1, 2).copy()))
    seen = torch.from_numpy(np.pad(~masked, ((0, 0), (1, 0)), constant_values=True))
    x = x[seen].reshape(2, -1, x.shape[-1])
    expected = []
    for block in tower.layers:
      x = block(x)
      expected.append(x.numpy())
  hyperparameters, params = vit.from_hf(*safetensors.read(folders / "vit"))
  mask = Mask.exactly(jnp.asarray(masked), num_masked=10)
  batch = {"image": jnp.asarray(images())}
  layers = jax.jit(plain_vit(**hyperparameters).layers)(Variables(params), batch, mask)
  assert_close(layers.tokens, expected)


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model", "dinov2", "vit"])
def test_workdirs_there_and_back(folders, tmp_path, kind):
  setting = {"vit": "dino_s16", "dinov2": "dinov2_b14"}.get(kind, "clip_b16")
  config = configs.load(f"configs/image/teacher.py:{setting}")
  weights.import_weights(folders / kind, config, tmp_path / "run")
  weights.export_weights(tmp_path / "run", tmp_path / "out")
  theirs_too = {"dinov2": transformers.Dinov2Model, "vit": transformers.ViTModel}
  model = theirs_too.get(kind, transformers.CLIPVisionModel)
  options = {"add_pooling_layer": False} if kind == "vit" else {}
  loaded = model.from_pretrained(tmp_path / "out", **options).eval()
  with torch.no_grad():
    pixels = torch.from_numpy(images().transpose(0, 3, 1, 2).copy())
    out = loaded(pixels, output_hidden_states=True)
  assert_close([state.numpy() for state in out.hidden_states[1:]], theirs(kind)[0])


def test_a_frozen_teachers_features_are_theirs(folders, tmp_path):
  config = configs.load("configs/image/teacher.py:clip_b16")
  config.objective.dtype = "float32"
  weights.import_weights(folders / "clip", config, tmp_path)
  config = workdirs.read_config(tmp_path)
  _, params = workdirs.checkpoints(tmp_path, config).restore_weights()
  teacher = teachers.frozen(objective=config.objective.to_dict(), workdir=str(tmp_path))
  batch = {"image": jnp.asarray(images())}
  features = teacher.features(None, Variables(params), batch)
  assert_close(features, theirs("clip")[1][:, 1:])


@pytest.mark.parametrize("kind", CONVERTERS)
def test_defaults_are_those_of_transformers(kind):
  config = {
    "clip": lambda: transformers.CLIPConfig().vision_config,
    "clip_vision_model": transformers.CLIPVisionConfig,
    "dinov2": transformers.Dinov2Config,
    "vit": transformers.ViTConfig,
  }[kind]().to_dict()
  module = clip_vision_model if kind == "clip" else CONVERTERS[kind]
  assert {key: config[key] for key in module.DEFAULTS} == module.DEFAULTS


@pytest.mark.parametrize(
  "kind, change, complaint",
  [
    ("dinov2", {"use_swiglu_ffn": True}, "use_swiglu_ffn=True: only False"),
    ("vit", {"qkv_bias": False}, "qkv_bias=False: only True"),
    ("vit", {"hidden_act": "relu"}, "activation='relu'"),
    ("clip", {"vision_config": None}, "vision_config=None: expected"),
    ("clip_vision_model", {"num_hidden_layers": 4}, "tensors do not fit the config"),
    ("vit", {"patch_size": 8}, "tensors do not fit the config"),
    ("clip", {"projection_dim": 9}, "tensors do not fit.*visual_projection.weight"),
  ],
)
def test_what_cannot_be_followed_is_refused(folders, kind, change, complaint):
  config, tensors = safetensors.read(folders / kind)
  with pytest.raises(UserError, match=complaint):
    CONVERTERS[kind].from_hf({**config, **change}, tensors)


def test_an_imported_teacher_does_not_train(refused, tmp_path):
  line = refused(
    *("train", "--config", "configs/image/teacher.py:dino_s16"),
    *("--workdir", tmp_path),
  )
  assert "objective.name='vit' has no loss" in line


def test_an_imported_teacher_is_probed(call, tmp_path):
  shape = {**SMALL, "image_size": 8, "num_channels": 1, "intermediate_size": 40}
  model = transformers.ViTModel(transformers.ViTConfig(**shape))
  model.save_pretrained(tmp_path / "theirs")
  config = configs.load("configs/image/mae.py:digits")
  config.eval.probes = ("knn",)
  with config.unlocked():
    config.objective = {"name": "vit"}
  weights.import_weights(tmp_path / "theirs", config, tmp_path / "run")
  code, out, err = call("eval", "--workdir", tmp_path / "run")
  assert (code, err) == (0, "")
  assert "trained" in out and "raw pixels" in out
