"""LocalMIM: 16 x 16 pixels in 4 x 4 patches of 4 x 4, of which 12 are masked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from helpers.image import hog, in_torch, short_run

from maskjax import config as configs
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import VisionEncoder
from maskjax.objectives import Step, Variables
from maskjax.systems import localmim
from maskjax.targets import Hog, Pixels
from maskjax.tokens import sincos

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
functional = torch.nn.functional

KEY = jax.random.key(3)
LAYERS, SCALES, ORIENTATIONS = (1, 2, 3, 4), (4, 2, 1, 0.5), 5
NOISE = np.random.default_rng(1).random((3, 16)).astype(np.float32)
MASKED = NOISE.argsort(axis=1).argsort(axis=1) >= 4
MASK = Mask.exactly(jnp.asarray(MASKED), num_masked=12)


def without_mechanism(monkeypatch):
  """All decoders decode the last block's output, as MAE's does."""
  every_block = VisionEncoder.every_block

  def last_alone(self, *args, **kwargs):
    outputs = every_block(self, *args, **kwargs)
    return [outputs[-1]] * len(outputs)

  monkeypatch.setattr(VisionEncoder, "every_block", last_alone)


def make(**more):
  return localmim(
    **{
      "image_size": 16,
      "channels": 2,
      "patch_size": 4,
      "encoder": dict(width=8, depth=4, heads=2),
      "decoder": dict(width=16, depth=1, heads=2),
      "layers": LAYERS,
      "scales": SCALES,
      "orientations": ORIENTATIONS,
      "norm_epsilon": 1e-3,
      **more,
    }
  )


def make_batch():
  return {"image": random(3, 16, 16, 2), "index": np.arange(3)}


@functools.cache
def ours():
  """Parameters, and a function of them.

  It gives predictions, the loss, what each layer adds to it, and the loss's gradients.
  """
  objective, batch = make(), make_batch()
  params = shaken(jax.eval_shape(objective.init, KEY, batch).params)

  @jax.jit
  def run(params):
    def value(params):
      loss = objective.loss_of_mask(Variables(params), batch, MASK)
      return loss.value(), loss

    patches = objective.patches(batch)
    predictions = objective.model.apply({"params": params}, patches, MASK)
    (_, loss), gradients = jax.value_and_grad(value, has_aux=True)(params)
    return predictions, loss, gradients

  return params, lambda params: jax.device_get(run(params))


def parts_of(loss):
  return np.array([loss.metrics[f"layer_{layer}"].value() for layer in LAYERS])


def outputs_of_theirs(encoder, images):
  """What each block of the MAE of transformers gives of visible patches."""
  config = transformers.ViTMAEConfig(
    image_size=16,
    patch_size=4,
    num_channels=2,
    hidden_size=8,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=32,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
    layer_norm_eps=1e-3,
  )
  model = transformers.ViTMAEModel(config)
  outputs = []
  for layer in model.layers:
    layer.register_forward_hook(lambda module, given, output: outputs.append(output))
  state = {
    "embeddings.cls_token": encoder["cls"],
    "embeddings.position_embeddings": positions(8),
    **in_torch.convolution(
      "embeddings.patch_embeddings.projection", encoder["embed"], 4, 2
    ),
    **in_torch.blocks("layers", encoder["transformer"]),
    **in_torch.norm("layernorm", encoder["norm"]),
  }
  out = torch.func.functional_call(
    model,
    state,
    (torch.tensor(images).permute(0, 3, 1, 2),),
    {"noise": torch.tensor(NOISE)},
    strict=True,
  )
  assert (out.mask.numpy() == MASKED).all()
  return config, outputs, out.ids_restore


def positions(width):
  return torch.tensor(np.pad(sincos((4, 4), width), ((1, 0), (0, 0))))[None]


def decoded_by_theirs(config, ours, output, restore):
  """The tokens of their decoder before its head, as an image: [B, D, 4, 4]."""
  model = transformers.models.vit_mae.modeling_vit_mae.ViTMAEDecoder(config, 16)
  model.decoder_pred = torch.nn.Identity()
  state = {
    "mask_token": ours["mask_token"],
    "decoder_pos_embed": positions(16),
    **in_torch.dense("decoder_embed", ours["embed"]),
    **in_torch.blocks("decoder_layers", ours["transformer"]),
    **in_torch.norm("decoder_norm", ours["norm"]),
  }
  out = torch.func.functional_call(model, state, (output, restore), strict=True)
  return out.logits.transpose(1, 2).reshape(-1, 16, 4, 4)


def deconvolution(x, ours):
  """[B, D, H, W] to [B, D', 2 * H, 2 * W], by torch's transposed convolution."""
  kernel = ours["kernel"].reshape(x.shape[1], 2, 2, -1).permute(0, 3, 1, 2)
  bias = ours["bias"].reshape(2, 2, -1).permute(2, 0, 1)
  y = functional.conv_transpose2d(x, kernel, stride=2)
  return y + bias.repeat(1, x.shape[2], x.shape[3])


def layer_norm(x, ours):
  """Over the channels of [B, D, H, W]."""
  x = x.movedim(1, -1)
  weights = ours["scale"], ours["bias"]
  return functional.layer_norm(x, x.shape[-1:], *weights, 1e-3).movedim(-1, 1)


def linear(x, ours):
  """Of each position of [B, D, H, W]: [B, H, W, T]."""
  return x.movedim(1, -1) @ ours["kernel"] + ours["bias"]


def theirs(params, images):
  """Predictions of all regions, [B, rows, columns, T] of each size."""
  config, outputs, restore = outputs_of_theirs(params["encoder"], images)
  for layer in (1, 2, 3):
    output, norm = outputs[layer - 1], params[f"norm_{layer}"]
    outputs[layer - 1] = layer_norm(output.movedim(-1, 1), norm).movedim(1, -1)
  last = params["encoder"]["norm"]
  weights = last["scale"], last["bias"]
  outputs[3] = functional.layer_norm(outputs[3], (8,), *weights, 1e-3)
  of = [params[f"decoders_{i}"] for i in range(4)]
  x = [
    decoded_by_theirs(config, of[i]["decoder"], outputs[i], restore) for i in range(4)
  ]
  x[0] = deconvolution(x[0], of[0]["decoder"]["head"])
  x[0] = functional.gelu(layer_norm(x[0], of[0]["norm_1"]))
  x[0] = deconvolution(x[0], of[0]["cut_1"])
  x[1] = deconvolution(x[1], of[1]["decoder"]["head"])
  x[3] = functional.avg_pool2d(x[3], 2)
  heads = [of[0]["head"], of[1]["head"], of[2]["decoder"]["head"]]
  heads.append(of[3]["decoder"]["head"])
  return [linear(tokens, head) for tokens, head in zip(x, heads, strict=True)]


def shares():
  """How much of each region is masked, for each size: [B, rows, columns]."""
  masked = torch.tensor(MASKED).reshape(3, 4, 4).float()
  finer = [masked.repeat_interleave(s, 1).repeat_interleave(s, 2) for s in SCALES[:2]]
  return [*finer, masked, functional.avg_pool2d(masked[:, None], 2)[:, 0]]


def test_predictions_losses_and_gradients_are_those_of_transformers_and_torch():
  params, run = ours()
  predictions, loss, gradients = run(params)
  parts = parts_of(loss)
  leaves, images = in_torch.leaves(params), make_batch()["image"]
  their_parts = []
  for ours_here, expected, share, side, part in zip(
    predictions, theirs(leaves, images), shares(), (1, 2, 4, 8), parts, strict=True
  ):
    if side == 8:
      drawn = ours_here.reshape(3, 2, 2, -1)
      assert_close(drawn, expected.detach())
    else:
      # [B, 4 * S, 4 * S, T] -> [B, 16, S * S * T]
      s = 4 // side
      patches = expected.reshape(3, 4, s, 4, s, -1).swapaxes(2, 3).reshape(3, 16, -1)
      assert_close(ours_here, patches[MASKED].reshape(3, 12, -1).detach())
    cells = hog.histograms(images, (side, side), ORIENTATIONS)
    errors = (expected - torch.tensor(cells).flatten(3)).square().mean(-1)
    their_parts.append((errors * share).sum() / share.sum())
    np.testing.assert_allclose(part, their_parts[-1].item(), rtol=1e-5)
  their_loss = sum(their_parts)
  their_loss.backward()
  np.testing.assert_allclose(loss.value(), their_loss.item(), rtol=1e-5)
  assert_close(gradients, in_torch.gradients(leaves))


def test_each_depth_has_its_own_decoder_and_needs_no_higher_block():
  params, run = ours()
  before = parts_of(run(params)[1])

  def changed(*path):
    """Which parts of the loss change with all parameters below a path."""
    _, after, _ = run(
      jax.tree.map_with_path(
        lambda keys, leaf: leaf + (tuple(k.key for k in keys)[: len(path)] == path),
        params,
      )
    )
    return (parts_of(after) != before).tolist()

  for i in range(4):
    block = changed("encoder", "transformer", f"block_{i}", "mlp", "up")
    assert block == [layer > i for layer in LAYERS]
    assert changed(f"decoders_{i}") == [layer == i + 1 for layer in LAYERS]


def test_regions_of_visible_patches_are_drawn_as_they_are():
  objective, batch = make(target="pixels"), make_batch()
  shapes = jax.eval_shape(objective.init, KEY, batch).params
  mask = np.asarray(objective.mask(batch, Step(KEY)).masked).reshape(3, 4, 4)
  variables = Variables(shaken(shapes))
  drawn = jax.device_get(jax.jit(objective.reconstruct)(variables, batch, Step(KEY)))
  np.testing.assert_array_equal(drawn["original"], batch["image"])
  for layer in (1, 2, 3):
    np.testing.assert_allclose(drawn[f"layer 0{layer}"], batch["image"], atol=1e-5)
    same = np.isclose(drawn[f"layer 0{layer} predicted"], batch["image"], atol=1e-5)
    same = same.reshape(3, 4, 4, 4, 4, 2).all(axis=(2, 4, 5))
    np.testing.assert_array_equal(same, ~mask)
  np.testing.assert_allclose(drawn["layer 04"], batch["image"], atol=1e-5)
  assert drawn["layer 04 predicted"].shape == batch["image"].shape


def test_pixels_are_normalized_by_their_region():
  objective, images = make(target="pixels"), make_batch()["image"]
  assert [target.cell_size for target in objective.scales] == [
    *((1, 1), (2, 2), (4, 4), (8, 8))
  ]
  values = np.asarray(objective.scales[1](images))
  assert values.shape == (3, 16, 2 * 2 * 2 * 2 * 2)
  # Patch 6 is in row 1 and column 2; its third region is below its first.
  region = images[:, 6:8, 8:10].reshape(3, -1).astype(np.float64)
  std = np.sqrt(region.var(axis=1, ddof=1, keepdims=True) + 1e-6)
  expected = (region - region.mean(axis=1, keepdims=True)) / std
  assert_close(values[:, 6].reshape(3, 4, 8)[:, 2], expected)


def test_defaults_are_the_papers():
  objective = localmim()
  assert objective.model.layers == (2, 4, 10, 12)
  assert localmim(encoder="L").model.layers == (2, 4, 22, 24)
  assert objective.masking.num_masked == 147
  assert objective.scales == tuple(
    Hog(patch_size=(patch, patch), cell_size=(cell, cell), channels=3)
    for patch, cell in ((16, 4), (16, 8), (16, 16), (32, 32))
  )
  decoder = objective.model.decoders[0].decoder
  assert (decoder.width, decoder.depth, decoder.heads) == (256, 1, 8)
  assert localmim(target="pixels").scales[0] == Pixels(
    patch_size=(16, 16), cell_size=(4, 4), channels=3, normalized=True
  )


def test_margins_of_the_small_config_are_not_random():
  config = configs.load("configs/image/localmim.py:small")
  margin = config.data.train_transforms[0]
  assert margin["size"] == 28 + 2 * margin["padding"] == config.objective.image_size


def test_its_losses_fall_and_its_features_differ():
  objective = localmim(
    image_size=8,
    channels=1,
    patch_size=2,
    encoder=dict(width=16, depth=2, heads=2),
    decoder=dict(width=16, depth=1, heads=2),
    layers=(1, 2),
    scales=(1, 0.5),
  )
  losses, batch, features = short_run.train(objective, num_steps=60, learning_rate=1e-2)
  assert np.mean(losses[-5:]) < 0.5 * losses[0]
  # Of the best single number for each size.
  sizes = [hog.histograms(batch["image"], (side, side), 9) for side in (2, 4)]
  assert np.mean(losses[-5:]) < 0.9 * sum(cells.var() for cells in sizes)
  singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
  assert (singular > 0.1 * singular[0]).sum() > 4


@pytest.mark.parametrize(
  "wrong, message",
  [
    (dict(layers=(1, 2, 4)), r"layers=\(1, 2, 4\): expected one block for each of"),
    (dict(layers=(1, 3, 2, 4)), r"layers=\(1, 3, 2, 4\): .*ascending from 1"),
    (dict(layers=(0, 1, 2, 4)), r"layers=\(0, 1, 2, 4\): .*ascending from 1"),
    (
      dict(layers=(1, 2), scales=(1, 1)),
      r"layers=\(1, 2\): expected .* to encoder.depth=4",
    ),
    (dict(layers=None), r"layers=\(2, 4, 2, 4\): expected"),
    (dict(scales=(4, 3, 1, 0.5)), r"scales=3: expected a power of 2"),
    (dict(scales=(8, 2, 1, 0.5)), r"scales=8: .* divides patch_size=4x4"),
    (dict(scales=(4, 2, 1, 0.2)), r"scales=0.2: .* grid of 4x4"),
    (dict(scales=(4, 2, 1, 0)), r"scales=0: expected"),
    (
      dict(decoder=dict(width=18, heads=2)),
      r"decoder.width=18: expected a multiple of scales=4",
    ),
    (dict(decoder=dict(heads=3)), r"decoder.width=.*multiple of decoder.heads=3"),
    (dict(decoder=dict(patch_dim=3)), r"decoder.patch_dim: there are: depth"),
    (dict(target="edges"), r"target='edges': expected 'hog' or 'pixels'"),
    (dict(orientations=0), r"orientations=0: expected a positive integer"),
  ],
)
def test_what_does_not_fit_is_refused(wrong, message):
  with pytest.raises(UserError, match=message):
    make(**wrong)
