"""Attention and activations, against NumPy and against torch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from scipy.special import softmax

from maskjax.models import attention, dense
from maskjax.models.attention import (
  Attention,
  attend,
  attend_by_columns,
  attend_by_groups,
  heads_per_group,
)
from maskjax.models.gelu import gelu, quick_gelu
from maskjax.models.rotary import rotate


def as_columns(query, key, value):
  """`attend_by_columns` of [B, H, N, D]."""
  arrays = (query * query.shape[-1] ** -0.5, key, value)
  return attend_by_columns(*(x.transpose(1, 0, 3, 2) for x in arrays)).transpose(
    1, 0, 3, 2
  )


def as_group(query, key, value):
  """`attend_by_groups` of [B, H, N, D], all heads in one."""
  batch, heads, _, depth = query.shape

  def join(x):
    return x.swapaxes(1, 2).reshape(1, batch, -1, heads * depth)

  y = attend_by_groups(join(query * depth**-0.5), join(key), join(value), heads)
  return y.reshape(batch, -1, heads, depth).swapaxes(1, 2)


FORMS = {"attend": attend, "columns": as_columns, "groups": as_group}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("queries", [7, 3])
def test_attend_is_torchs(queries, form):
  torch = pytest.importorskip("torch")
  inputs = [random(2, 3, n, 4, seed=n) * 2 for n in (queries, 7, 8)]
  inputs[2] = inputs[2][:, :, :7]
  weights = random(2, 3, queries, 4, seed=9)
  theirs = [torch.from_numpy(x).double().requires_grad_() for x in inputs]
  output = torch.nn.functional.scaled_dot_product_attention(*theirs)
  (output * torch.from_numpy(weights)).sum().backward()

  @jax.jit
  def run(*inputs):
    ours, pullback = jax.vjp(FORMS[form], *inputs)
    return ours, pullback(jnp.asarray(weights))

  ours, gradients = run(*inputs)
  assert_close(ours, output.detach().numpy(), 2e-6)
  assert_close(gradients, tuple(x.grad.numpy() for x in theirs), 2e-6)


@pytest.mark.parametrize(("form", "roundings"), [("attend", 1), ("columns", 2)])
def test_attend_in_bfloat16_has_its_softmax_in_float32(form, roundings):
  # Exactly representable inputs whose scores, 256 and 257, are one number in
  # bfloat16: a softmax of rounded scores would give them the same weight.
  query = jnp.bfloat16([[[[16.0, 1.0, 0.0, 0.0]]]])
  key = jnp.bfloat16([[[[32.0, 0.0, 0.0, 0.0], [32.0, 2.0, 0.0, 0.0]]]])
  value = jnp.bfloat16([[[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]])
  out = FORMS[form](query, key, value)
  assert out.dtype == jnp.bfloat16
  # Weights are rounded to bfloat16, of 8 bits; before their division, if by columns,
  # which is rounded again.
  expected = [1 / (1 + math.e), math.e / (1 + math.e), 0, 0]
  np.testing.assert_allclose(np.float32(out)[0, 0, 0], expected, rtol=roundings * 2**-8)


@pytest.mark.parametrize("form", FORMS)
def test_attend_has_derivatives_forward_too(form):
  inputs = [random(2, 3, 7, 4, seed=seed) for seed in range(3)]
  steps = [random(2, 3, 7, 4, seed=seed) for seed in range(3, 6)]
  ours = jax.jit(functools.partial(jax.jvp, FORMS[form]))(inputs, steps)
  theirs = jax.jit(functools.partial(jax.jvp, attend))(inputs, steps)
  assert_close(ours, theirs, 2e-6)


@pytest.mark.parametrize(
  ("shape", "group"),
  [
    ((16, 50, 64), 2),
    ((16, 50, 32), 2),
    ((15, 16, 16), 5),
    ((12, 10, 8), 12),
    ((16, 50, 80), 1),
    ((16, 197, 32), 1),
    ((3, 50, 64), 1),
    ((4, 9, 256), 1),
  ],
)
def test_a_group_of_heads_fits_the_lanes(shape, group):
  heads, length, depth = shape
  assert heads_per_group(heads=heads, length=length, depth=depth) == group


def attend_by_hand(query, key, value, bias=0.0):
  scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1]) + bias
  return softmax(scores, axis=-1) @ value


def test_a_bias_is_added_to_the_scores():
  query, key, value = (random(2, 3, n, 4, seed=n).astype(float) for n in (5, 7, 7))
  bias = random(3, 5, 7).astype(np.float64)
  bias[1, 2, 3:] = -np.inf  # where it must not look
  expected = attend_by_hand(query, key, value, bias)
  assert_close(attend(*(jnp.float32(x) for x in (query, key, value, bias))), expected)


@pytest.mark.parametrize("key_bias", [True, False])
def test_attention_to_other_tokens(key_bias):
  model = Attention(heads=2, key_bias=key_bias)
  asking, context = random(2, 5, 8), random(2, 7, 6, seed=1)
  shapes = jax.eval_shape(model.init, jax.random.key(0), asking, context)["params"]
  assert ("bias" in shapes["key"]) == key_bias
  params = shaken(shapes)

  def heads(x, name):
    y = x @ params[name]["kernel"] + params[name].get("bias", 0)
    return y.reshape(*x.shape[:2], 2, 4).swapaxes(1, 2)

  found, sown = model.apply(
    {"params": params}, asking, context, mutable=["intermediates"]
  )
  query, key = heads(asking, "query"), heads(context, "key")
  y = attend_by_hand(query, key, heads(context, "value"))
  y = y.swapaxes(1, 2).reshape(asking.shape)
  assert_close(found, y @ params["out"]["kernel"] + params["out"]["bias"])
  # [B, H, N, K], each query's summing to 1.
  weights = sown["intermediates"]["weights"][0]
  expected = softmax(query @ key.swapaxes(2, 3) / 2, axis=-1)
  assert_close(weights, expected)


@pytest.mark.parametrize("on_tpu", [False, True])
def test_what_is_taken_may_differ_from_what_is_looked_at(monkeypatch, on_tpu):
  for module in (attention, dense):
    monkeypatch.setattr(module, "for_tpu", lambda: on_tpu)
  model = Attention(heads=2)
  asking, context, values = (random(2, n, 8, seed=n) for n in (5, 6, 7))
  values = values[:, :6]
  shapes = jax.eval_shape(model.init, jax.random.key(0), asking, context)["params"]
  params = shaken(shapes)
  found = model.apply({"params": params}, asking, context, values=values)

  def heads(x, name):
    y = x @ params[name]["kernel"] + params[name]["bias"]
    return y.reshape(*x.shape[:2], 2, 4).swapaxes(1, 2)

  looked = heads(asking, "query"), heads(context, "key")
  y = attend_by_hand(*looked, heads(values, "value"))
  y = y.swapaxes(1, 2).reshape(asking.shape)
  assert_close(found, y @ params["out"]["kernel"] + params["out"]["bias"])


# Rotary positions


def test_weights_are_dropped_and_the_others_scaled_up():
  """With values that are the tokens' own numbers, the outcome is the weights."""
  layer, key = Attention(heads=1, use_bias=False, dropout=0.25), jax.random.key(0)
  tokens = jnp.eye(64)[None]
  params = {"params": layer.init(key, tokens, tokens)["params"]}
  for name in ("value", "out"):
    params["params"][name]["kernel"] = jnp.eye(64)
  whole = np.asarray(layer.apply(params, tokens, tokens))
  rngs = {"dropout": jax.random.key(1)}
  dropped = np.asarray(layer.apply(params, tokens, tokens, rngs=rngs))
  lives = dropped > 0
  assert abs(lives.mean() - 0.75) < 0.02  # of 4,096
  np.testing.assert_allclose(dropped[lives], whole[lives] / 0.75, rtol=1e-6)


def test_rotated_products_depend_on_offsets_alone():
  query, key = random(1, 2, 6, 8), random(1, 2, 6, 8, seed=1)
  positions = np.stack(np.indices((2, 3)), axis=-1).reshape(-1, 2)

  def products(shift):
    turned = rotate(query, positions + shift), rotate(key, positions + shift)
    return np.einsum("bhnd,bhkd->bhnk", *turned)

  assert_close(products(np.array([5, -3])), products(0))
  assert np.abs(products(0) - np.einsum("bhnd,bhkd->bhnk", query, key)).max() > 0.1


def test_rotation_is_that_of_croco_v2():
  """Arxiv:2211.10408: a RoPE of each axis in its half, at 100 ** (-2 i / half)."""
  x, place = random(1, 1, 1, 8), (2, 3)
  expected = []
  for axis, part in enumerate(np.split(x[0, 0, 0].astype(np.float64), 2)):
    for i in range(2):
      turn = np.exp(1j * place[axis] * 100 ** (-2 * i / 4))
      expected.append((part[i] + 1j * part[i + 2]) * turn)
  a, b, c, d = expected
  expected = [a.real, b.real, a.imag, b.imag, c.real, d.real, c.imag, d.imag]
  assert_close(rotate(x, jnp.array([place]))[0, 0, 0], np.array(expected))
  np.testing.assert_array_equal(rotate(x, jnp.zeros((1, 2))), x)


# GELU


def test_gelu_is_torchs():
  torch = pytest.importorskip("torch")
  x = np.linspace(-8, 8, 4001, dtype=np.float32)
  wide = torch.from_numpy(x).double().requires_grad_()
  torch.nn.functional.gelu(wide).sum().backward()
  ours, slope = jax.jit(jax.vmap(jax.value_and_grad(gelu)))(x)
  expected = torch.nn.functional.gelu(wide.detach()).numpy()
  # Of numbers up to 8, times a probability rounded to 24 bits.
  np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-6)
  np.testing.assert_allclose(slope, wide.grad.numpy(), rtol=2e-6, atol=1e-6)


def test_quick_gelu_is_clips():
  x = np.linspace(-8, 8, 101)
  assert_close(quick_gelu(jnp.float32(x)), x / (1 + np.exp(-1.702 * x)))


def test_gelu_leaves_its_input_alone_for_the_backward_pass():
  _, pullback = jax.vjp(gelu, jnp.ones((4, 8), jnp.bfloat16))
  kept = [leaf.shape for leaf in jax.tree.leaves(pullback) if leaf.ndim]
  assert kept == [(4, 8)]
