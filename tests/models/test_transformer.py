"""Blocks and stacks of them, against NumPy and against themselves in other forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken
from scipy.special import erf, softmax

from maskjax.errors import UserError
from maskjax.models import (
  BlockOptions,
  Change,
  Transformer,
  attention,
  blocks_like,
  dense,
  stack_blocks,
  transformer,
  unstack_blocks,
)
from maskjax.models.dropout import stochastic_depth
from maskjax.models.transformer import Block

# The block

B, N, D, HEADS, EPSILON = 3, 5, 8, 2, 0.1


def norm_by_hand(x, p):
  centered = x - x.mean(axis=-1, keepdims=True)
  variance = (centered**2).mean(axis=-1, keepdims=True)
  return centered / np.sqrt(variance + EPSILON) * p["scale"] + p["bias"]


def dense_by_hand(x, p):
  return x @ p["kernel"] + p["bias"]


def attention_by_hand(p, asking, context):
  heads = []
  for h in range(HEADS):
    part = slice(h * D // HEADS, (h + 1) * D // HEADS)
    q = dense_by_hand(asking, p["query"])[..., part]
    k, v = (dense_by_hand(context, p[name])[..., part] for name in ("key", "value"))
    weights = softmax(q @ k.swapaxes(1, 2) / math.sqrt(D // HEADS), axis=-1)
    heads.append(weights @ v)
  return dense_by_hand(np.concatenate(heads, axis=-1), p["out"])


def block_by_hand(p, x, attention_kept=1.0, mlp_kept=1.0, context=None):
  """X + attention(norm(x)), then x + mlp(norm(x)), in float64."""
  p = jax.tree.map(np.float64, p)
  if "attention" in p:
    y = norm_by_hand(x, p["attention_norm"])
    y = p.get("attention_scale", 1) * attention_by_hand(p["attention"], y, y)
    x = x + attention_kept * y
  if context is not None:
    y = norm_by_hand(x, p["cross_attention_norm"])
    other = norm_by_hand(context, p["context_norm"])
    y = attention_by_hand(p["cross_attention"], y, other)
    x = x + p.get("cross_attention_scale", 1) * y
  z = dense_by_hand(norm_by_hand(x, p["mlp_norm"]), p["mlp"]["up"])
  z = z * (1 + erf(z / math.sqrt(2))) / 2
  z = p.get("mlp_scale", 1) * dense_by_hand(z, p["mlp"]["down"])
  return x + mlp_kept * z


@pytest.mark.parametrize("num_queries", [None, 3])
def test_block_by_hand(num_queries):
  options = BlockOptions(mlp_ratio=1.5, norm_epsilon=EPSILON)
  block = Block(heads=HEADS, options=options, num_queries=num_queries)
  x = 2 * random(B, N, D)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
  assert shapes["mlp"]["up"]["kernel"].shape == (D, 12)
  params = shaken(shapes)
  expected = block_by_hand(params, x)
  expected = expected if num_queries is None else expected[:, -num_queries:]
  assert_close(jax.jit(block.apply)({"params": params}, x), expected)


@pytest.mark.parametrize("attends", ["self", "context", "both"])
def test_block_with_context_and_scales_by_hand(attends):
  options = BlockOptions(norm_epsilon=EPSILON, layer_scale=0.1)
  block = Block(heads=HEADS, options=options, attends=attends, num_queries=3)
  x, context = random(B, N, D), random(B, N + 1, D, seed=1)
  init = jax.jit(functools.partial(block.init, context=context))
  variables = init(jax.random.key(0), x)
  assert np.allclose(variables["params"]["mlp_scale"], 0.1)
  params = shaken(variables["params"])
  found = jax.jit(functools.partial(block.apply, {"params": params}))
  expected = block_by_hand(params, x, context=None if attends == "self" else context)
  assert_close(found(x, context=context), expected[:, -3:])


@pytest.fixture(params=["groups", "columns"])
def as_on_tpu(monkeypatch, request):
  """Lets models take the forms that they have on TPUs, on this machine."""
  for module in (attention, dense):
    monkeypatch.setattr(module, "for_tpu", lambda: True)
  if request.param == "columns":
    monkeypatch.setattr(attention, "LANES", 1)  # which no group fits


@pytest.mark.parametrize("num_queries", [None, 3])
def test_the_block_is_the_same_on_tpu(as_on_tpu, num_queries):
  test_block_by_hand(num_queries)


# The stack


def make_transformer(depth=2, attends="self", **options):
  options = BlockOptions(norm_epsilon=EPSILON, mlp_ratio=2.0, **options)
  return Transformer(depth=depth, heads=HEADS, attends=attends, options=options)


def make_params(depth=2):
  model = make_transformer(depth=depth)
  shapes = jax.eval_shape(model.init, jax.random.key(0), random(B, N, D))
  return shaken(shapes["params"])


@functools.cache
def run_transformer(num_queries=None, **options):
  """The last 3 tokens, and the gradients of a random function of them."""
  model, params = make_transformer(**options), make_params()
  scan = options.get("scan", False)
  params = stack_blocks(params) if scan else params
  weights = random(B, 3, D, seed=5)

  @jax.jit
  def run(params, x):
    def last(params, x):
      return model.apply({"params": params}, x, num_queries)[-1][:, -3:]

    y, pullback = jax.vjp(last, params, x)
    return y, *pullback(jnp.asarray(weights))

  y, grads, grad_x = run(params, random(B, N, D))
  return y, unstack_blocks(grads) if scan else grads, grad_x


def test_transformer_by_hand():
  params, x = make_params(), random(B, N, D).astype(np.float64)
  for i in range(2):
    x = block_by_hand(params[f"block_{i}"], x)
  assert_close(run_transformer()[0], x[:, -3:])


@pytest.mark.parametrize(
  "form",
  [
    {"num_queries": 3},
    {"scan": True, "num_queries": 3},
    {"remat": "full"},
    {"remat": "dots"},
    {"scan": True, "remat": "full"},
    {"scan": True, "remat": "dots"},
  ],
  ids=str,
)
def test_other_forms_give_the_same_numbers_and_gradients(form):
  assert_close(run_transformer(**form), run_transformer())


@pytest.mark.parametrize("scan", [False, True])
def test_dropped_paths_of_each_block_by_itself(scan):
  options = BlockOptions(norm_epsilon=EPSILON, mlp_ratio=2.0, drop_path=0.9, scan=scan)
  model = Transformer(depth=2, heads=HEADS, options=options, drop_paths=(0.0, 0.0))
  params = stack_blocks(make_params()) if scan else make_params()
  dropping = {"drop_path": jax.random.key(0)}

  @functools.partial(jax.jit, static_argnames="rates")
  def last(params, x, rates):
    of_rates = model.clone(drop_paths=rates)
    return of_rates.apply({"params": params}, x, rngs=dropping)[-1]

  x = random(B, N, D)
  assert_close(last(params, x, (0.0, 0.0)), model.apply({"params": params}, x)[-1])
  assert np.abs(last(params, x, (0.0, 0.9)) - last(params, x, (0.0, 0.0))).max() > 0.1


def test_num_queries_are_what_comes_out():
  x = random(B, N, D)
  for scan in (False, True):
    model = make_transformer(scan=scan)
    shape = jax.eval_shape(
      lambda key, model=model: model.init_with_output(key, x, 2)[0][-1],
      jax.random.key(0),
    )
    assert shape.shape == (B, 2, D)


@pytest.mark.parametrize("scan", [False, True])
def test_num_keys_are_all_that_is_attended_to(scan):
  params, x = make_params(), random(B, N, D)
  silent = np.where(np.arange(N) < 2, 0.0, -np.inf).astype(np.float32)
  model = make_transformer(scan=scan)
  own = {"params": stack_blocks(params) if scan else params}
  found, expected = jax.jit(
    lambda own, x: (
      model.apply(own, x, num_keys=2)[-1],
      model.apply(own, x, bias=silent)[-1],
    )
  )(own, x)
  assert_close(found, expected)


def test_stack_blocks_and_back():
  # Twelve, of which the eleventh and twelfth come before the third by the alphabet.
  blocks = {f"block_{i}": {"a": {"kernel": np.full(2, i)}, "b": i} for i in range(12)}
  params = {"encoder": {"transformer": blocks, "norm": {"scale": np.ones(2)}}, "x": 1}
  stacked = stack_blocks(params)
  assert list(stacked["encoder"]["transformer"]) == ["blocks"]
  series = stacked["encoder"]["transformer"]["blocks"]
  np.testing.assert_array_equal(series["b"], range(12))
  np.testing.assert_array_equal(series["a"]["kernel"][:, 1], range(12))
  back = unstack_blocks(stacked)
  assert jax.tree.structure(back) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, back, params)


def test_scanned_parameters_are_those_of_a_stack():
  scanned, separate = (
    jax.eval_shape(
      make_transformer(scan=scan).init, jax.random.key(0), random(B, N, D)
    )["params"]
    for scan in (True, False)
  )
  stacked = jax.eval_shape(stack_blocks, separate)
  assert jax.tree.map(lambda x: x.shape, scanned) == jax.tree.map(
    lambda x: x.shape, stacked
  )


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_blocks_attend_to_a_context_or_to_one_each(scan, each):
  model = make_transformer(attends="context", scan=scan)
  x, first = random(B, N, D), random(B, 4, D, seed=1)
  context = [first, first + 1] if each else first
  shapes = jax.eval_shape(
    functools.partial(make_transformer(attends="context").init, context=first),
    jax.random.key(0),
    x,
  )
  params = shaken(shapes["params"])
  own = stack_blocks(params) if scan else params
  found = jax.jit(model.apply)({"params": own}, x, context=context)
  expected = x.astype(np.float64)
  for i in range(2):
    of_block = context[i] if each else first
    expected = block_by_hand(params[f"block_{i}"], expected, context=of_block)
    assert_close(found[i], expected)


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_hidden_states_change_before_one_block_alone(layer, scan, remat):
  params, x = make_params(3), random(B, N, D)
  other = random(B, N, D, seed=1)
  change = Change(
    layer, lambda tokens: jnp.concatenate([tokens[:, :2], other[:, 2:]], 1)
  )
  model = make_transformer(depth=3, scan=scan, remat=remat)
  own = stack_blocks(params) if scan else params
  found = jax.jit(lambda own, x: model.apply({"params": own}, x, change=change))(own, x)
  expected = x.astype(np.float64)
  for i in range(3):
    if i == layer:
      expected = np.concatenate([expected[:, :2], other[:, 2:]], axis=1)
    expected = block_by_hand(params[f"block_{i}"], expected)
    assert_close(found[i], expected)


# Options


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"remat": "some"}, "remat='some': expected none, dots, full"),
    ({"activation": "gleu"}, "activation='gleu': did you mean 'gelu'"),
    ({"scan": True, "norm_first": False}, "scan=True: expected norm_first=True"),
    ({"dropout": 1.0}, "dropout=1.0: expected at least 0 and less than 1"),
    ({"norm": "batch"}, "norm='batch': expected 'layer' or 'rms'"),
    ({"key_heads": 0}, "key_heads=0: expected None or at least 1"),
    ({"attention_dropout": -0.1}, "attention_dropout=-0.1: expected at least 0"),
    (
      {"attention_output_dropout": 1.0},
      "attention_output_dropout=1.0: expected at least 0",
    ),
    ({"dtype": "float16"}, "dtype='float16': expected 'float32' or 'bfloat16'"),
    ({"rotary_bases": ()}, "expected at least one base"),
  ],
  ids=str,
)
def test_options_that_do_not_fit_are_named(options, message):
  with pytest.raises(UserError, match=message):
    BlockOptions(**options)


def test_options_are_equal_and_hashed_by_what_they_mean():
  named = BlockOptions(dtype="bfloat16", rotary_bases=[1e4])
  typed = BlockOptions(dtype=jnp.bfloat16, rotary_bases=(1e4,))
  assert named == typed and hash(named) == hash(typed)


def test_further_blocks_have_a_networks_options():
  first = make_transformer(gated=True, norm_first=False)
  further = blocks_like(first, 3, dropout=0.5)
  assert (further.depth, further.heads) == (3, HEADS)
  assert further.options == first.options.replace(norm_first=True, dropout=0.5)


@pytest.mark.parametrize(
  ("rates", "expected"),
  [({}, [0.25, 0.25]), ({"attention_output_dropout": 0.5}, [0.5, 0.25])],
)
def test_attention_may_drop_another_share_of_its_output(monkeypatch, rates, expected):
  found = []

  def note(module, y, rate):
    if isinstance(module, Block):
      found.append(rate)
    return y

  monkeypatch.setattr(transformer, "dropout", note)
  block = Block(heads=HEADS, options=BlockOptions(dropout=0.25, **rates))
  jax.eval_shape(block.init, jax.random.key(0), random(B, N, D))
  assert found == expected


# Drop path


def test_branches_of_whole_examples_are_dropped_and_the_others_scaled():
  y = random(2000, 3, 2) + 10
  keep = functools.partial(Block(heads=2).apply, {}, y, 0.25, method=stochastic_depth)
  np.testing.assert_array_equal(keep(), y)
  out = np.asarray(keep(rngs={"drop_path": jax.random.key(0)}))
  dropped = (out == 0).all(axis=(1, 2))
  np.testing.assert_allclose(out[~dropped], y[~dropped] / 0.75, rtol=1e-6)
  # Hoeffding's bound, which one seed in 10^9 passes; so the mean is preserved.
  assert abs(dropped.mean() - 0.25) < math.sqrt(math.log(2e9) / (2 * 2000))


@pytest.mark.parametrize("scan", [False, True])
def test_drop_path_rises_from_0_over_the_blocks(scan):
  model, params = make_transformer(depth=3, drop_path=0.5, scan=scan), make_params(3)
  x = np.tile(random(1, N, D), (32, 1, 1))

  @jax.jit
  def run(params, key):
    def tokens(rngs):
      return jnp.stack(model.apply({"params": params}, x, rngs=rngs))

    return tokens({}), tokens({"drop_path": key})

  whole, dropped = run(stack_blocks(params) if scan else params, jax.random.key(1))
  undisturbed = x[:1].astype(np.float64)
  for i in range(3):
    # Without a generator nothing is dropped.
    undisturbed = block_by_hand(params[f"block_{i}"], undisturbed)
    assert_close(whole[i], np.tile(undisturbed, (32, 1, 1)))
  # The first block drops nothing; each later one drops or scales either branch.
  assert_close(dropped[0], whole[0], 1e-6)
  for i, kept in ((1, 0.75), (2, 0.5)):
    before = np.asarray(dropped[i - 1], np.float64)
    candidates = np.stack(
      [
        block_by_hand(params[f"block_{i}"], before, a, m)
        for a in (0, 1 / kept)
        for m in (0, 1 / kept)
      ]
    )
    errors = np.abs(candidates - dropped[i]).max(axis=(2, 3))  # [4, 32]
    assert errors.min(axis=0).max() < 1e-5 * np.abs(candidates).max()
    # With 32 examples each of the four shows, but once in some hundred seeds.
    assert set(errors.argmin(axis=0)) == {0, 1, 2, 3}
