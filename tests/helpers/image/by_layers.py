"""Transformers in torch, in double precision, under parameters of ours; short runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

import maskjax as mj
from maskjax.training.step import init_state, train_step

KEY = jax.random.key(0)
SMALL = {"width": 8, "depth": 2, "heads": 2}
IMAGES = {"image_size": (6, 8), "channels": 1, "patch_size": 2, "encoder": SMALL}


def doubles(tree):
  """Tensors of torch, of arrays."""
  return jax.tree.map(lambda x: torch.tensor(np.asarray(x, np.float64)), tree)


def make_batch(count=4, **more):
  """Images of stripes, each in a direction of its own; 3 x 4 patches of 2 x 2."""
  rng = np.random.default_rng(0)
  place = np.stack(np.meshgrid(np.arange(6), np.arange(8), indexing="ij"), axis=-1)
  phase = 0.7 * place @ rng.normal(size=(2, count)) + rng.normal(size=count)
  images = np.sin(phase).transpose(2, 0, 1)[..., None].astype(np.float32)
  return {"image": images, "index": np.arange(count), **more}


def patches_of(images):
  """[B, 6, 8, 1] to [B, 12, 4]."""
  cut = np.asarray(images).reshape(-1, 3, 2, 4, 2)
  return cut.transpose(0, 1, 3, 2, 4).reshape(-1, 12, 4)


def normalized(patches):
  mean, std = patches.mean(-1, keepdims=True), patches.std(-1, ddof=1, keepdims=True)
  return (patches - mean) / np.sqrt(std**2 + 1e-6)


def pick(tokens, ids):
  """[B, N, D] and [B, K] to [B, K, D]."""
  ids = torch.as_tensor(np.array(ids)).long()
  return torch.gather(tokens, 1, ids[..., None].expand(-1, -1, tokens.shape[-1]))


def dense(p, x):
  return F.linear(x, p["kernel"].T, p.get("bias"))


def norm(p, x):
  return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], eps=1e-6)


def turned(x, places):
  """CroCo v2's rotation [B, H, N, D], as products of complex numbers."""
  quarter = x.shape[-1] // 4
  angle = places[:, None, :, :, None] * 100.0 ** (-torch.arange(quarter) / quarter)
  y = x.unflatten(-1, (2, 2, quarter))
  y = torch.complex(y[..., 0, :], y[..., 1, :]) * torch.polar(
    torch.ones_like(angle), angle
  )
  return torch.stack([y.real, y.imag], dim=-2).flatten(-3)


def attention(p, asking, context, heads, *, bias=None, places=None):
  q, k, v = (
    dense(p[name], x).unflatten(-1, (heads, -1)).transpose(1, 2)
    for name, x in (("query", asking), ("key", context), ("value", context))
  )
  if places is not None:
    q, k = turned(q, places[0]), turned(k, places[1])
  y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
  return dense(p["out"], y.transpose(1, 2).flatten(-2))


def block(p, x, heads=2, *, context=None, bias=None, places=None, context_places=None):
  """A block; its parameters decide whether it attends to itself or to others."""

  def scale(name):
    return p.get(f"{name}_scale", 1.0)

  if "attention" in p:
    y = norm(p["attention_norm"], x)
    own = None if places is None else (places, places)
    y = attention(p["attention"], y, y, heads, bias=bias, places=own)
    x = x + scale("attention") * y
  if "cross_attention" in p:
    both = None if places is None else (places, context_places)
    y, context = norm(p["cross_attention_norm"], x), norm(p["context_norm"], context)
    x = x + attention(p["cross_attention"], y, context, heads, places=both)
  y = dense(p["mlp"]["up"], norm(p["mlp_norm"], x))
  return x + scale("mlp") * dense(p["mlp"]["down"], F.gelu(y))


def blocks(p, x, *, context=None, **where):
  """What each of `block_0`, `block_1`, ... gives; `context` may be a list, one each."""
  outputs = []
  for i in range(len(p)):
    own = context[i] if isinstance(context, list) else context
    x = block(p[f"block_{i}"], x, context=own, **where)
    outputs.append(x)
  return outputs


def train(objective, batch, *, steps, learning_rate=1e-2):
  """Trains on one batch: the loss of each step, the first state and the last."""
  optimizer = mj.training.adamw(learning_rate=learning_rate, num_steps=2 * steps)
  step = functools.partial(train_step, objective=objective, optimizer=optimizer)
  step = jax.jit(functools.partial(step, key=KEY, num_steps=steps))
  state = jax.jit(functools.partial(init_state, objective, optimizer))(batch, KEY)
  first, values = jax.device_get(state), []
  for _ in range(steps):
    state, metrics = step(state, jax.tree.map(jnp.asarray, batch))
    values.append(float(metrics["loss"].value()))
  return values, first, state
