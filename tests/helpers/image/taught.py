"""What the tests of systems with teachers share: tiny ones, and in transformers."""

import functools

import jax
import numpy as np
import pytest
from helpers.arrays import random, shaken

import maskjax as mj
from maskjax.convert import safetensors, vit
from maskjax.objectives import Step, Variables
from maskjax.tokens import sincos

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KEY = jax.random.key(3)
STEP = Step(KEY)
SHAPE = {"image_size": 8, "patch_size": 2, "channels": 1}
STUDENT = {"width": 8, "depth": 2, "heads": 2}
LARGER = {"width": 12, "depth": 2, "heads": 3}
TEACHER = {
  "name": "frozen",
  "objective": {
    "name": "mae",
    **SHAPE,
    "encoder": LARGER,
    "decoder": {"width": 8, "depth": 1, "heads": 2},
  },
}


FEATURES_ALONE = {"name": "frozen", "objective": {"name": "helpers.objectives:patches"}}


def make_batch(count=4, seed=0):
  return {
    "image": random(count, 8, 8, 1, seed=seed),
    "index": np.arange(count),
    "valid": np.ones(count, bool),
  }


def make_variables(objective, batch):
  """Variables none of which is 0 or 1, teachers' included."""
  shapes = jax.eval_shape(objective.init, KEY, batch)
  return Variables(shaken(shapes.params), shaken(shapes.extra, seed=1))


class Theirs:
  """`ViTModel` with the weights of an encoder here.

  Args:
    encoder: has fixed positions.
    params: its parameters.
    folder: an empty one, for files of weights.
  """

  def __init__(self, encoder, params, folder):
    width = encoder.width
    ones = {"scale": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}
    # An encoder that ends without a normalization has none of its own.
    params = {"norm": ones, **params, "positions": sincos(encoder.grid, width)}
    hyperparameters = {
      **SHAPE,
      "encoder": {name: getattr(encoder, name) for name in STUDENT},
      "norm_epsilon": encoder.norm_epsilon,
    }
    safetensors.write(folder, *vit.to_hf(hyperparameters, {"encoder": params}))
    self.model = transformers.ViTModel.from_pretrained(
      folder, add_pooling_layer=False, attn_implementation="eager"
    ).eval()

  def layers(self, images, masked=None):
    """Tokens after each block, the class token first, and the last one's attention.

    Args:
      images: [B, H, W, C].
      masked: bool [B, N], patches that it must not see; none when None.
    """
    weights = []
    keep = lambda module, inputs, outputs: weights.append(outputs[1])  # noqa: E731
    handle = self.model.layers[-1].attention.register_forward_hook(keep)
    x = self.model.embeddings(torch.tensor(images.transpose(0, 3, 1, 2)))
    if masked is not None:
      seen = np.pad(~np.asarray(masked), ((0, 0), (1, 0)), constant_values=True)
      x = x[torch.from_numpy(seen)].reshape(len(x), -1, x.shape[-1])
    tokens = []
    for block in self.model.layers:
      x = block(x)
      tokens.append(x)
    handle.remove()
    return tokens, weights[0]

  def features(self, images):
    """Of whole images, after the last normalization: [B, N, D]."""
    return self.model.layernorm(self.layers(images)[0][-1])[:, 1:]


def dense(x, ours):
  """A dense layer of ours on a tensor of theirs."""
  return x @ torch.tensor(ours["kernel"]) + torch.tensor(ours["bias"])


def picked(tokens, ids):
  """Tokens by position: [B, N, D] and int [B, K] to [B, K, D]."""
  rows = torch.from_numpy(np.asarray(ids, np.int64))
  return tokens[torch.arange(len(tokens))[:, None], rows]


@functools.cache
def loss_of(objective):
  """The loss of an objective, compiled once."""
  return jax.jit(objective.loss)


def assert_parts_add_up(objective):
  """The loss of a batch is that of its parts, and of its valid rows alone."""
  batch = make_batch()
  variables = make_variables(objective, batch)

  def loss(batch):
    return loss_of(objective)(variables, batch, STEP)

  whole = loss(batch)
  parts = [loss({name: rows[i::2] for name, rows in batch.items()}) for i in (0, 1)]
  assert whole.weight == parts[0].weight + parts[1].weight
  np.testing.assert_allclose(whole.sum, parts[0].sum + parts[1].sum, rtol=1e-5)
  valid = np.arange(len(batch["index"])) % 2 == 0
  images = np.where(valid[:, None, None, None], batch["image"], 1e3)
  some = loss({**batch, "image": images, "valid": valid})
  assert some.weight == parts[0].weight
  np.testing.assert_allclose(some.sum, parts[0].sum, rtol=1e-5)


def assert_no_collapse(features):
  """Features [B, N, D] vary in more than a tenth of their directions."""
  tokens = np.asarray(features).reshape(-1, features.shape[-1])
  assert mj.evaluation.effective_rank(tokens) > 0.1 * tokens.shape[1]
