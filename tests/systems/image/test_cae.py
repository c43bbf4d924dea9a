"""CAE: masked latents from visible ones, aligned, and alone decoded to codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers.arrays import assert_close, shaken
from helpers.image.codes import IMAGES, KEY, TOKENIZER, make_batch, train

from maskjax import config as configs
from maskjax.errors import UserError
from maskjax.losses import squared_error
from maskjax.objectives import Step, Variables
from maskjax.objectives.tokenizers import code_cross_entropy
from maskjax.systems import cae
from maskjax.systems.image.cae import objective as module
from maskjax.tokens import sincos

STEP = Step(KEY)


def without_mechanism(monkeypatch):
  """Predicted latents are free: nothing aligns them with the encoder's."""
  free = lambda predictions, targets: jnp.zeros(predictions.shape[:-1])  # noqa: E731
  monkeypatch.setattr(module, "squared_error", free)


SYSTEM = {
  **IMAGES,
  "tokenizer": TOKENIZER,
  "encoder": {"width": 8, "depth": 1, "heads": 2},
  "regressor_depth": 2,
  "decoder_depth": 1,
  "mask": {"name": "blockwise", "min_patches": 2},
  "drop_path": 0.0,
  "norm_epsilon": 1e-3,
}


@functools.cache
def made():
  objective = cae(**SYSTEM)
  params = shaken(jax.eval_shape(objective.init_params, KEY, make_batch()))
  tokenizer = jax.jit(objective.tokenizer.init)(KEY, make_batch())
  return objective, Variables(params, {"tokenizer": tokenizer})


@jax.jit
def computed(variables, batch, constants):
  """Of the objective; its gradient, and that against given latents."""
  objective, (params, extra) = made()[0], variables
  patches, mask = objective.patches(batch), objective.mask(batch, STEP)
  codes = mask.take_masked(objective.tokenizer.codes(extra["tokenizer"], batch))

  def encode(mask):
    encoder = objective.model.encoder
    return encoder.apply({"params": params["encoder"]}, patches, mask)[:, 1:]

  def loss(params):
    return objective.loss(Variables(params, extra), batch, STEP)

  def against(params):
    logits, regressed, _ = objective.apply(Variables(params), patches, mask)
    return (
      code_cross_entropy(logits, codes) + 2 * squared_error(regressed, constants)
    ).sum()

  return {
    "mask": mask,
    "codes": codes,
    "visible": encode(mask),
    "latents": encode(mask.inverse()),
    "predictions": objective.apply(variables, patches, mask),
    "loss": loss(params),
    "gradient": jax.grad(lambda params: loss(params).sum)(params),
    "gradient_against_constants": jax.grad(against)(params),
  }


def outcome(batch):
  """All of it, with the latents of the masked patches as constants."""
  _, variables = made()
  latents = computed(variables, batch, np.zeros((4, 5, 8), np.float32))["latents"]
  return jax.device_get(computed(variables, batch, latents))


# The equations of section 3 in float64.


def norm(x, layer):
  centered = x - x.mean(axis=-1, keepdims=True)
  std = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-3)
  return centered / std * layer["scale"] + layer["bias"]


def dense(x, layer):
  return x @ layer["kernel"] + layer.get("bias", 0)


def attend(query, key, value, layer):
  heads = [dense(x, layer[n]) for x, n in zip((query, key, value), KINDS, strict=True)]
  # [B, N, D] -> [B, H, N, D / H]
  q, k, v = (x.reshape(*x.shape[:2], 2, 4).swapaxes(1, 2) for x in heads)
  weights = scipy.special.softmax(q @ k.swapaxes(2, 3) / 2, axis=-1)
  return dense((weights @ v).swapaxes(1, 2).reshape(query.shape), layer["out"])


KINDS = ("query", "key", "value")


def mlp(x, layer):
  hidden = dense(x, layer["up"])
  return dense(hidden * scipy.special.ndtr(hidden), layer["down"])


def regress(params, visible, masked_positions, visible_positions):
  masked = np.broadcast_to(params["mask_token"], masked_positions.shape)
  positions = np.concatenate([visible_positions, masked_positions], axis=1)
  for i in range(2):
    block = params[f"regressor_{i}"]
    # The visible latents stay; positions decide where to look, not what is taken.
    everything = np.concatenate([visible, masked], axis=1)
    seen = attend(
      norm(masked + masked_positions, block["query_norm"]),
      norm(everything + positions, block["key_norm"]),
      norm(everything, block["value_norm"]),
      block["attention"],
    )
    x = norm(masked + block["attention_scale"] * seen, block["mlp_norm"])
    masked = x + block["mlp_scale"] * mlp(x, block["mlp"])
  return norm(masked, params["regressor_norm"])


def decode(params, regressed, masked_positions):
  block = params["decoder"]["block_0"]
  x = regressed + masked_positions
  y = norm(x, block["attention_norm"])
  x = x + block["attention_scale"] * attend(y, y, y, block["attention"])
  x = x + block["mlp_scale"] * mlp(norm(x, block["mlp_norm"]), block["mlp"])
  return dense(norm(x, params["decoder_norm"]), params["head"])


def by_hand(out):
  params, table = jax.tree.map(np.float64, made()[1].params), sincos((3, 3), 8)
  masked, visible = table[out["mask"].masked_ids], table[out["mask"].visible_ids]
  regressed = regress(params, np.float64(out["visible"]), masked, visible)
  return regressed, decode(params, regressed, masked)


def test_predictions_and_loss_are_the_papers():
  valid = np.array([True, True, False, True])
  out = outcome({**make_batch(), "valid": valid})
  assert out["mask"].masked.sum(axis=1).tolist() == [5] * 4  # half of 9, rounded up
  regressed, logits = by_hand(out)
  assert_close(out["predictions"][1], regressed)
  assert_close(out["predictions"][0], logits)
  assert_close(out["predictions"][2], out["latents"])
  log_p = scipy.special.log_softmax(logits, axis=-1)
  errors = -np.take_along_axis(log_p, out["codes"][..., None], axis=-1)[..., 0]
  far = ((regressed - out["latents"]) ** 2).mean(axis=-1)
  loss = out["loss"]
  assert loss.weight == 3 * 5 and len(np.unique(out["codes"])) > 2
  np.testing.assert_allclose(loss.value(), (errors + 2 * far)[valid].mean(), rtol=1e-5)
  for name, expected in (("cross_entropy", errors), ("alignment", far)):
    np.testing.assert_allclose(
      loss.metrics[name].value(), expected[valid].mean(), rtol=1e-5, err_msg=name
    )
  right = (logits.argmax(axis=-1) == out["codes"])[valid].mean()
  np.testing.assert_allclose(loss.metrics["accuracy"].value(), right)


def test_no_gradient_flows_into_what_latents_are_aligned_with():
  out = outcome(make_batch())
  assert_close(out["gradient"], out["gradient_against_constants"])


def test_each_side_sees_its_own_patches_alone():
  batch, out = make_batch(), outcome(make_batch())
  masked = np.repeat(np.repeat(out["mask"].masked.reshape(-1, 3, 3), 2, 1), 2, 2)
  changed = outcome({**batch, "image": batch["image"] + masked[..., None]})
  for i in range(2):
    np.testing.assert_array_equal(changed["predictions"][i], out["predictions"][i])
  assert np.abs(changed["latents"] - out["latents"]).max() > 0.01
  changed = outcome({**batch, "image": batch["image"] + ~masked[..., None]})
  np.testing.assert_array_equal(changed["latents"], out["latents"])
  assert np.abs(changed["predictions"][1] - out["predictions"][1]).max() > 0.01


def test_losses_fall_and_latents_do_not_collapse():
  objective, batch = cae(**{**SYSTEM, "layer_scale": 1.0}), make_batch(32)
  values, _, state = train(objective, batch, steps=60, learning_rate=1e-2)
  assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])
  features = np.asarray(jax.jit(objective.features)(state.variables, batch))
  spectrum = np.linalg.svd(features.reshape(-1, 8) - features.mean(axis=(0, 1)))[1]
  shares = spectrum**2 / (spectrum**2).sum()
  assert np.exp(-(shares * np.log(shares)).sum()) > 2


def test_the_papers_numbers():
  config = configs.load("configs/image/cae.py:imagenet").objective.to_dict()
  config.pop("name")
  objective = cae(**config)
  assert objective.masking.num_masked == 98 and objective.alignment == 2
  assert objective.pretrained == {"tokenizer": "runs/vqkd"}


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"alignment": -1.0}, "alignment=-1.0: expected at least 0"),
    ({"regressor_depth": 0}, "regressor_depth=0, .* expected at least 1"),
    ({"decoder_depth": 0}, "decoder_depth=0: expected at least 1"),
    ({"image_size": 8}, "tokenizer gives 3x3 codes: expected 4x4"),
    ({"mask": "blokwise"}, "did you mean 'blockwise'"),
  ],
)
def test_wrong_hyperparameters_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    cae(**{**SYSTEM, **wrong})
