"""SimMIM: its own words, and its three encoders against transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.arrays import assert_close, random, shaken

import maskjax as mj
from maskjax.convert import safetensors, swin_mim, swinv2_mim, vit_mim
from maskjax.masking import Mask
from maskjax.objectives import simmim

KEY = jax.random.key(0)

VIT = {"width": 8, "depth": 1, "heads": 2}
SWIN = {"width": 8, "depths": (2, 2), "heads": (2, 4), "window": 3}


def make(encoder_type="vit", **more):
  """Images of 12 x 12 pixels, patches of 1, units of 2 (or of Swin's 4) patches."""
  encoder = VIT if encoder_type == "vit" else SWIN
  return simmim(
    **{
      "image_size": 12,
      "channels": 3,
      "patch_size": 2,
      "encoder_type": encoder_type,
      "encoder": encoder,
      "mask_patch_size": 4,
      **more,
    }
  )


def make_batch(size=12, count=2):
  return {"image": jnp.asarray(random(count, size, size, 3))}


@functools.cache
def params_of(encoder_type, **more):
  objective = make(encoder_type, **more)
  return shaken(jax.eval_shape(objective.init, KEY, make_batch()).params)


# Against transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONVERTERS = {"vit": vit_mim, "swin": swin_mim, "swinv2": swinv2_mim}

# The sides of the grid of patches and of the windows: divided evenly, and filled up.
CASES = {
  "vit": ("vit", 4, None),
  "swin": ("swin", 8, 4),
  "swin, windows that do not divide": ("swin", 8, 3),
  "swin, one window in the end": ("swin", 4, 2),
  "swinv2": ("swinv2", 8, 4),
  "swinv2, windows that do not divide": ("swinv2", 8, 3),
  "swinv2, windows larger than the grid": ("swinv2", 8, 6),
}


@functools.cache
def make_theirs(encoder_type, side, window):
  """A tiny model of theirs with patches of 2 x 2, every parameter of it random."""
  common = {"image_size": 2 * side, "patch_size": 2, "num_channels": 3}
  if encoder_type == "vit":
    config = transformers.ViTConfig(
      **common,
      encoder_stride=2,
      hidden_size=16,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=32,
      layer_norm_eps=1e-3,
    )
    model = transformers.ViTForMaskedImageModeling(config)
  else:
    kinds = {"swin": "Swin", "swinv2": "Swinv2"}
    config = getattr(transformers, f"{kinds[encoder_type]}Config")(
      **common,
      encoder_stride=4,
      embed_dim=8,
      depths=[2, 1],
      num_heads=[2, 4],
      window_size=window,
      mlp_ratio=2.0,
    )
    name = f"{kinds[encoder_type]}ForMaskedImageModeling"
    model = getattr(transformers, name)(config)
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = rng.normal(size=tuple(parameter.shape))
      centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
      parameter.copy_(torch.from_numpy(centre + 0.3 * noise))
  return model.eval()


@functools.cache
def written(case):
  """The folder's content of a model of theirs, by their own writing."""
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    make_theirs(*CASES[case]).save_pretrained(folder)
    return safetensors.read(folder)


def make_mask(side, count=3):
  """Not in units, so that each place shows."""
  hidden = np.random.default_rng(1).permuted(
    np.tile(np.arange(side**2) < side**2 // 2, (count, 1)), axis=1
  )
  return Mask.from_hidden(jnp.asarray(hidden), num_hidden=side**2 // 2)


def run_theirs(model, images, hidden):
  with torch.no_grad():
    out = model(
      torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
      bool_masked_pos=torch.from_numpy(np.array(hidden)),
    )
  return out.reconstruction.numpy().transpose(0, 2, 3, 1), out.loss.item()


@pytest.mark.parametrize("case", CASES)
def test_predictions_and_loss_are_those_of_transformers(case):
  encoder_type, side, _ = CASES[case]
  images, mask = random(3, 2 * side, 2 * side, 3), make_mask(side)
  predictions, loss = run_theirs(make_theirs(*CASES[case]), images, mask.hidden)
  hyperparameters, params = CONVERTERS[encoder_type].from_hf(*written(case))
  objective = simmim(**hyperparameters, mask_patch_size=2)
  batch = {"image": jnp.asarray(images)}

  @jax.jit
  def run(params, batch, mask):
    patches = objective.patches(batch)
    ours = objective.predict(mask, params, patches, visible_too=True)
    loss = objective.loss_under(mask, params, batch).value()
    return mj.tokens.unpatchify(ours, grid=(side, side), patch_size=2), loss

  ours, our_loss = run(params, batch, mask)
  assert_close(ours, predictions)
  assert abs(float(our_loss) - loss) <= 1e-5 * abs(loss)
