"""Transformers of text in NumPy, on the parameters of ours, written from their papers.

In float64; a row at a time: tokens [N, D], and which see which, bool [N, K].
"""

import math

import jax
import numpy as np

erf = np.vectorize(math.erf)


def tree(params):
  """Parameters as float64."""
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(params))


def dense(p, x):
  y = x @ p["kernel"]
  return y + p["bias"] if "bias" in p else y


def norm(p, x, epsilon, kind="layer"):
  centered = x - x.mean(axis=-1, keepdims=True) if kind == "layer" else x
  y = centered / np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + epsilon)
  return y * p["scale"] + p.get("bias", 0.0)


def gelu(x):
  return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def softmax(x):
  x = np.exp(x - x.max(axis=-1, keepdims=True))
  return x / x.sum(axis=-1, keepdims=True)


def log_softmax(x):
  x = x - x.max(axis=-1, keepdims=True)
  return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def attention(p, x, sees, heads, turn=lambda x: x, context=None, bias=None, waves=None):
  """`bias` is added to scores, [H, N, K]; `waves` to keys and values, [N, K, D / H]."""
  context = x if context is None else context
  width = x.shape[-1] // heads
  outputs = []
  query, key = dense(p["query"], x), dense(p["key"], context)
  value = dense(p["value"], context)
  shared = x.shape[-1] // key.shape[-1]
  for h in range(heads):
    part = slice(h * width, (h + 1) * width)
    of_key = slice(h // shared * width, (h // shared + 1) * width)
    scores = turn(query[:, part]) @ turn(key[:, of_key]).T
    if waves is not None:
      scores = scores + np.einsum("nd,nkd->nk", query[:, part], waves)
    scores = scores / math.sqrt(width) + (0 if bias is None else bias[h])
    weights = softmax(np.where(sees, scores, -np.inf))
    output = weights @ value[:, of_key]
    if waves is not None:
      output = output + np.einsum("nk,nkd->nd", weights, waves)
    outputs.append(output)
  return dense(p["out"], np.concatenate(outputs, axis=-1))


def silu(x):
  return x / (1 + np.exp(-x))


def rotary(positions, base):
  """Turns queries and keys [N, D] by the angles of their positions [N]."""

  def turn(x):
    half = x.shape[-1] // 2
    angles = np.outer(positions, base ** -(np.arange(half) / half))
    # Two channels are a complex number, which is multiplied by one of length 1.
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)

  return turn


def distance_bias(table, row, encoder):
  """Biases of attention by distance, [H, N, K], from a table [2 S, H].

  Distances below half of S are numbered one by one, the others by their logarithm; the
  last number is that of `farthest` and of all beyond it.
  """
  numbers, exact = encoder.buckets, encoder.buckets // 2

  def number(distance):
    if abs(distance) < exact:
      return distance
    share = math.log(abs(distance) / exact) / math.log((encoder.farthest - 1) / exact)
    far = min(exact + math.ceil(share * (numbers - 1 - exact) - 1e-9), numbers - 1)
    return far if distance > 0 else -far

  at = np.asarray(row.position)
  ids = np.vectorize(number)(at[:, None] - at[None]) + numbers
  return table[ids].transpose(2, 0, 1)


def waves(row, encoder):
  """Sines and cosines of distances, [N, K, D / H]: the distance 0 is number L - 1."""
  at = np.asarray(row.position)
  number = at[None] - at[:, None] + encoder.length - 1
  half = encoder.width // encoder.heads // 2
  angles = number[..., None] / 10_000 ** (np.arange(half) / half)
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def block(
  p,
  x,
  sees,
  heads,
  *,
  epsilon,
  norm_last,
  kind,
  turn=lambda x: x,
  activation=gelu,
  **how,
):
  def mlp(x):
    y = activation(dense(p["mlp"]["up"], x))
    if "gate" in p["mlp"]:
      y = y * dense(p["mlp"]["gate"], x)
    return dense(p["mlp"]["down"], y)

  def attend(x):
    return attention(p["attention"], x, sees, heads, turn, **how)

  for name, branch in (("attention", attend), ("mlp", mlp)):
    if norm_last:
      x = norm(p[f"{name}_norm"], x + branch(x), epsilon, kind)
    elif f"{name}_norm" not in p:
      x = x + branch(x)
    else:
      x = x + branch(norm(p[f"{name}_norm"], x, epsilon, kind))
  return x


def blocks(p, x, sees, encoder, turn=lambda x: x, activation=gelu, **how):
  """All blocks of a `Transformer`; `sees` is one for all, or one for each."""
  for i in range(len(p)):
    seen = sees[i] if isinstance(sees, list) else sees
    options = encoder.options
    shape = dict(
      epsilon=options.norm_epsilon, norm_last=options.norm_last, kind=options.norm
    )
    shape |= dict(turn=turn, activation=activation, **how)
    x = block(p[f"block_{i}"], x, seen, encoder.heads, **shape)
  return x


def embed(p, row, encoder):
  """Of one row, a `Text` of arrays [N]."""
  x = p["tokens"][row.token]
  if "positions" in p:
    x = x + p["positions"][row.position]
  if "types" in p:
    x = x + p["types"][0]
  return norm(p["embed_norm"], x, encoder.norm_epsilon) if "embed_norm" in p else x


def same_document(row, keys=None):
  keys = row if keys is None else keys
  return np.asarray(row.segment)[:, None] == np.asarray(keys.segment)[None]


def encode(p, row, encoder, turn=lambda x: x):
  x, how = embed(p, row, encoder), {}
  if encoder.positions == "biased":
    how["bias"] = distance_bias(p["distance_bias"], row, encoder)
  if encoder.positions == "waves":
    how["waves"] = waves(row, encoder)
  x = blocks(p["transformer"], x, same_document(row), encoder, turn, **how)
  return x if encoder.options.norm_last else norm(p["norm"], x, encoder.norm_epsilon)


def vocabulary(p, table, x, encoder):
  x = norm(p["norm"], gelu(dense(p["dense"], x)), encoder.norm_epsilon)
  return x @ table.T + p["bias"]
