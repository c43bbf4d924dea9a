"""BEiT v2: a tokenizer's codes, predicted twice; BEiT itself against transformers."""

import dataclasses
import functools
import json
import tempfile

import jax
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.image.codes import IMAGES, KEY, TOKENIZER, VQKD, make_batch, train
from helpers.running import tiny_config

from maskjax import config as configs
from maskjax import experiment
from maskjax import workdir as workdirs
from maskjax.convert import beit_mim, safetensors
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables
from maskjax.systems import beit_v2, vqkd
from maskjax.systems.image.beit_v2 import CodePredictor
from maskjax.training import TrainState

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """The shallow head sees the last block's patches: no aggregation."""

  def aggregate(self, last, early):
    return self.aggregator(last, bias=self.encoder.relative())[-1]

  monkeypatch.setattr(CodePredictor, "aggregate", aggregate)


SYSTEM = {
  **IMAGES,
  "tokenizer": TOKENIZER,
  "encoder": {"width": 8, "depth": 2, "heads": 2},
  "early_layer": 1,
  "head_depth": 2,
  "mask": {"name": "blockwise", "min_patches": 2},
  "drop_path": 0.0,
}


@functools.cache
def make_theirs():
  """A tiny BEiT of theirs, every parameter of it random, and its folder's content."""
  config = transformers.BeitConfig(
    image_size=6,
    patch_size=2,
    num_channels=1,
    vocab_size=6,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    # Large, so that it shows.
    layer_norm_eps=1e-3,
    use_mask_token=True,
    use_shared_relative_position_bias=True,
  )
  model = transformers.BeitForMaskedImageModeling(config).eval()
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = rng.normal(size=tuple(parameter.shape))
      center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
      parameter.copy_(torch.from_numpy(center + 0.3 * noise))
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    return model, *safetensors.read(folder)


@functools.cache
def made():
  """Our system with the weights of theirs, and a random head of two blocks."""
  hyperparameters, params = beit_mim.from_hf(*make_theirs()[1:])
  hyperparameters |= {"head_depth": 2, "early_layer": 1}
  objective = beit_v2(**{**SYSTEM, **hyperparameters, "drop_path": 0.0})
  shapes = jax.eval_shape(objective.init, KEY, make_batch())
  tokenizer = jax.jit(objective.tokenizer.init)(KEY, make_batch())
  params = {**shaken(shapes.params), **params}
  return objective, Variables(params, {"tokenizer": tokenizer})


def outcome(batch):
  """All that our system computes of a batch."""
  return jax.device_get(_outcome(made()[1], batch))


@jax.jit
def _outcome(variables, batch):
  objective = made()[0]
  mask = objective.mask(batch, STEP)
  return {
    "masked": mask.masked,
    "logits": objective.apply(variables, objective.patches(batch), mask),
    "codes": objective.tokenizer.codes(variables.extra["tokenizer"], batch),
    "loss": objective.loss(variables, batch, STEP),
    "features": objective.features(variables, batch),
  }


def run_theirs(batch, out):
  """Their tokens after each block, logits of masked patches and loss."""
  masked = torch.from_numpy(np.array(out["masked"]))
  labels = torch.from_numpy(np.array(out["codes"])).long()[masked]
  pixels = torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    theirs = make_theirs()[0](
      pixels, bool_masked_pos=masked, labels=labels, output_hidden_states=True
    )
  return theirs.hidden_states, theirs.logits[masked], labels, theirs.loss.item()


def aggregated(tokens):
  """Their own blocks, with our head's weights, on the last class token."""
  model, params = make_theirs()[0], made()[1].params["aggregator"]
  x = torch.cat([tokens[-1][:, :1], tokens[1][:, 1:]], dim=1)
  bias = model.beit.shared_position_bias((3, 3))
  names = {
    "layernorm_before": "attention_norm",
    "layernorm_after": "mlp_norm",
    "attention.q_proj": "attention/query",
    "attention.k_proj": "attention/key",
    "attention.v_proj": "attention/value",
    "attention.o_proj": "attention/out",
    "mlp.fc1": "mlp/up",
    "mlp.fc2": "mlp/down",
  }
  for i in range(2):
    layer = type(model.beit.layers[0])(model.config).eval()
    ours = params[f"block_{i}"]
    state = {"lambda_1": ours["attention_scale"], "lambda_2": ours["mlp_scale"]}
    for there, path in names.items():
      leaves = functools.reduce(lambda tree, key: tree[key], path.split("/"), ours)
      for name, leaf in leaves.items():
        kind = "bias" if name == "bias" else "weight"
        state[f"{there}.{kind}"] = leaf.T
    layer.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    with torch.no_grad():
      x = layer(x, attention_mask=bias)
  with torch.no_grad():
    return model.lm_head(model.layernorm(x[:, 1:]))


def test_both_predictions_and_the_loss_are_those_of_transformers():
  batch = make_batch()
  out = outcome(batch)
  tokens, logits, labels, loss = run_theirs(batch, out)
  ours = [x.reshape(-1, 6) for x in out["logits"]]
  assert_close(ours[0], logits.numpy())
  again = aggregated(tokens)[torch.from_numpy(np.array(out["masked"]))]
  assert_close(ours[1], again.numpy())
  assert np.abs(ours[1] - ours[0]).max() > 0.1
  loss += torch.nn.functional.cross_entropy(again, labels).item()
  np.testing.assert_allclose(out["loss"].value(), loss, rtol=1e-5)
  right = (ours[1].argmax(axis=-1) == labels.numpy()).mean()
  np.testing.assert_allclose(out["loss"].metrics["aggregated_accuracy"].value(), right)
  assert len(np.unique(labels)) > 2


def test_features_are_those_of_the_encoder_alone():
  pixels = torch.from_numpy(make_batch()["image"].transpose(0, 3, 1, 2).copy())
  model = make_theirs()[0]
  with torch.no_grad():
    tokens = model.layernorm(model.beit(pixels).last_hidden_state)
  assert_close(outcome(make_batch())["features"], tokens[:, 1:].numpy())


def test_without_aggregation_it_is_beit():
  objective, (params, extra) = made()
  alone = dataclasses.replace(objective, model=objective.model.clone(head_depth=0))
  kept = {name: part for name, part in params.items() if name != "aggregator"}
  shapes = jax.eval_shape(alone.init_params, KEY, make_batch())
  assert jax.tree.structure(shapes) == jax.tree.structure(kept)
  loss = jax.eval_shape(alone.loss, Variables(kept, extra), make_batch(), STEP)
  assert set(loss.metrics) == {"accuracy"}


def test_the_papers_masks_and_dropped_paths():
  config = configs.load("configs/image/beit_v2.py:imagenet").objective.to_dict()
  config.pop("name")
  objective = beit_v2(**config)
  assert objective.masking.num_masked == 75 and objective.patches.grid == (14, 14)
  # Those of the head go on from the early layer: of twelve from 0 to 0.1, the tenth and
  # the eleventh.
  drop_paths = objective.model.bind({}).aggregator.drop_paths
  np.testing.assert_allclose(drop_paths, [0.1 * 9 / 11, 0.1 * 10 / 11])
  keys = jax.random.split(KEY, 16)
  sampler = objective.masking.sampler
  masked = jax.jit(jax.vmap(lambda key: sampler(key, (14, 14), 75)))(keys)
  masks = np.asarray(masked).reshape(-1, 14, 14)
  # Neighbors share their fate more often than where each patch is drawn by itself.
  alike = (masks[:, 1:] == masks[:, :-1]).mean()
  assert alike > 0.8 > (75 / 196) ** 2 + (121 / 196) ** 2


def test_paths_are_dropped_in_training_alone():
  objective, (params, extra) = made()
  encoder = objective.model.encoder
  encoder = encoder.clone(options=encoder.options.replace(drop_path=0.9))
  drops = dataclasses.replace(objective, model=objective.model.clone(encoder=encoder))
  batch, whole = make_batch(), outcome(make_batch())["loss"].value()
  run = jax.jit(lambda *given: (drops.evaluate(*given), drops.loss(*given)))
  kept, dropped = run(Variables(params, extra), batch, STEP)
  np.testing.assert_allclose(kept.value(), whole, rtol=1e-6)
  assert abs(float(dropped.value()) / float(whole) - 1) > 1e-3


def test_losses_fall_and_the_tokenizer_stays():
  own = {"head_depth": 1, "initialization": "xavier"}
  objective = beit_v2(**{**SYSTEM, **own})
  batch = make_batch(32)
  values, first, state = train(objective, batch, steps=60, learning_rate=1e-2)
  assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])
  jax.tree.map(np.testing.assert_array_equal, state.extra, first.extra)


def test_the_tokenizer_brings_its_codebook_and_not_its_teacher(tmp_path):
  config = tiny_config()
  shape = {"image_size": 8, "patch_size": 4}
  mae = {**VQKD["teacher"]["objective"], **shape}
  teacher = {"name": "frozen", "objective": mae}
  config.objective = {"name": "vqkd", **VQKD, **shape, "teacher": teacher}
  objective = vqkd(**{**VQKD, **shape, "teacher": teacher})
  batch = objective.batch_shapes(1)
  params, extra = shaken(jax.eval_shape(objective.init, KEY, batch))
  with workdirs.opened(config, tmp_path / "vqkd") as opened:
    checkpoints = workdirs.checkpoints(opened.folder, config)
    state = TrainState(step=np.int32(2), params=params, extra=extra, opt_state=())
    checkpoints.save(2, state, {})
    checkpoints.close()

  tokenizer = {
    "name": "frozen",
    "objective": config.objective.to_dict(),
    "workdir": str(tmp_path / "vqkd"),
  }
  config = tiny_config()
  config.objective = {"name": "beit_v2", **SYSTEM, **shape, "tokenizer": tokenizer}
  prepared = experiment.prepare(config)
  fresh = jax.eval_shape(prepared.objective.init, KEY, batch)
  begun = experiment.beginning(prepared)(fresh)
  assert begun.params is fresh.params
  expected = Variables(params, {"codebook": extra["codebook"]})
  jax.tree.map(np.testing.assert_array_equal, begun.extra["tokenizer"], expected)


# Weights


def test_weights_come_back_bit_for_bit():
  _, config, tensors = make_theirs()
  hyperparameters, params = beit_mim.from_hf(config, tensors)
  ours, written = beit_mim.to_hf({**hyperparameters, "tokenizer": TOKENIZER}, params)
  assert {key: config[key] for key in beit_mim.DEFAULTS if key in config} == {
    key: ours[key] for key in beit_mim.DEFAULTS if key in config
  }
  assert written.keys() == tensors.keys()
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def test_our_files_give_our_predictions_in_theirs(tmp_path):
  params = made()[1].params
  hyperparameters = {
    **SYSTEM,
    "layer_scale": 0.2,
    "norm_epsilon": 1e-3,
    "mlp_ratio": 3.0,
  }
  content = beit_mim.to_hf(hyperparameters, params)
  safetensors.write(tmp_path / "out", *content)
  model, report = transformers.BeitForMaskedImageModeling.from_pretrained(
    tmp_path / "out", output_loading_info=True
  )
  assert not any(report[key] for key in ("missing_keys", "unexpected_keys"))
  assert not any("aggregator" in name for name in content[1])
  assert (
    json.loads((tmp_path / "out" / "config.json").read_text())["layer_scale_init_value"]
    == 0.2
  )
  out, batch = outcome(make_batch()), make_batch()
  masked = torch.from_numpy(np.array(out["masked"]))
  pixels = torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    logits = model.eval()(pixels, bool_masked_pos=masked).logits[masked]
  assert_close(np.asarray(out["logits"][0]).reshape(-1, 6), logits.numpy())


def test_defaults_are_those_of_transformers():
  config = transformers.BeitConfig().to_dict()
  assert {key: config[key] for key in beit_mim.DEFAULTS} == beit_mim.DEFAULTS


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"use_mask_token": False}, "use_mask_token=False: only True is supported"),
    ({"use_mean_pooling": False}, "use_mean_pooling=False: only True"),
    ({"layer_scale_init_value": 0.0}, "layer_scale_init_value=0.0: expected above 0"),
    ({"vocab_size": 7}, "2 misshapen .lm_head.weight"),
    ({"num_attention_heads": 3}, "encoder.width=8: expected a multiple"),
  ],
)
def test_folders_that_do_not_fit_are_refused(wrong, message):
  _, config, tensors = make_theirs()
  with pytest.raises(UserError, match=message):
    beit_mim.from_hf({**config, **wrong}, tensors)


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"early_layer": 2}, "early_layer=2: expected .* less than encoder.depth=2"),
    ({"head_depth": -1}, "head_depth=-1: expected at least 0"),
    ({"image_size": 8}, "tokenizer gives 3x3 codes: expected 4x4"),
    ({"tokenizer": {"name": "frozen"}}, "'frozen' is missing its 'objective'"),
    (
      {"tokenizer": {"name": "frozen", "objective": VQKD["teacher"]["objective"]}},
      "'mae' gives no codes",
    ),
    ({"mask_ratio": 1.0}, "mask_ratio=1.0: expected"),
  ],
)
def test_wrong_hyperparameters_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    beit_v2(**{**SYSTEM, **wrong})
