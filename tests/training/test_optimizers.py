"""Optimizers and schedules against torch, and by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskjax.errors import UserError
from maskjax.models import stack_blocks, unstack_blocks
from maskjax.objectives import classification
from maskjax.training import adamw
from maskjax.training.layer_decay import scale_by_layer
from maskjax.training.optimizers import lamb, sgd, stable_adamw


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rate_by_hand(step, *, peak, warmup, total, final):
  """Linear from 0, then half a cosine."""
  if step < warmup:
    return peak * step / warmup
  share = min(1, (step - warmup) / (total - warmup))
  return final + (peak - final) * (1 + math.cos(math.pi * share)) / 2


def rates(steps, **keywords):
  """The learning rates of an optimizer, read off its updates.

  Under a gradient that stays 1, both moments are 1 once their bias is corrected.
  """
  optimizer = adamw(weight_decay=0.0, **keywords)
  params = {"kernel": jnp.zeros(())}
  state, update, found = optimizer.init(params), jax.jit(optimizer.update), []
  for _ in range(steps):
    updates, state = update({"kernel": jnp.ones(())}, state, params)
    found.append(-float(updates["kernel"]))
  return found


@pytest.mark.parametrize(("warmup", "final"), [(4, 0.1), (0, 0.0)])
def test_schedule(warmup, final):
  found = rates(
    16,
    learning_rate=0.5,
    num_steps=12,
    warmup_steps=warmup,
    final_learning_rate=final,
  )
  expected = [
    rate_by_hand(i, peak=0.5, warmup=warmup, total=12, final=final) for i in range(16)
  ]
  # Correcting the bias takes 1 - 0.95^t of float32, which leaves five digits.
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)
  assert found[warmup] == pytest.approx(0.5, rel=2e-5)
  assert found[(warmup + 12) // 2] == pytest.approx((0.5 + final) / 2, rel=2e-5)
  assert found[12] == pytest.approx(final, rel=2e-5, abs=1e-9)
  assert (found[0] == 0) == (warmup > 0)


def test_a_schedule_that_counts_its_warmup_is_timms():
  """The cosine of all steps, whose first ones the warm-up replaces."""
  found = rates(
    10,
    learning_rate=0.5,
    num_steps=10,
    warmup_steps=3,
    initial_learning_rate=0.1,
    final_learning_rate=0.2,
    counts_warmup=True,
  )
  whole = [
    rate_by_hand(i, peak=0.5, warmup=0, total=10, final=0.2) for i in range(3, 10)
  ]
  warm = [0.1, 0.1 + 0.4 / 3, 0.1 + 0.8 / 3]
  np.testing.assert_allclose(found, warm + whole, rtol=2e-5)


def test_schedule_along_a_line():
  keywords = dict(learning_rate=0.5, num_steps=12, warmup_steps=4)
  found = rates(14, **keywords, final_learning_rate=0.1, schedule="linear")
  expected = np.interp(range(14), [0, 4, 12], [0, 0.5, 0.1])
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)
  with pytest.raises(UserError, match="schedule='linea': did you mean 'linear'"):
    adamw(**keywords, schedule="linea")


def test_schedule_with_a_step():
  found = rates(12, learning_rate=0.5, num_steps=12, warmup_steps=4, drop_at=9)
  expected = [0, 0.125, 0.25, 0.375, *[0.5] * 5, *[0.05] * 3]
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)


def test_a_schedule_of_several_cycles_begins_anew():
  keywords = {"learning_rate": 0.5, "warmup_steps": 2, "final_learning_rate": 0.1}
  once = rates(5, num_steps=5, **keywords)
  twice = rates(10, num_steps=10, cycles=2, **keywords)
  assert once[0] == 0 and max(once) > 0.4
  np.testing.assert_allclose(twice, [*once, *once], rtol=1e-5)


def test_adamw_is_torchs():
  torch = pytest.importorskip("torch")
  schedule = {"peak": 0.1, "warmup": 5, "total": 20, "final": 0.01}
  params = {
    "dense": {"kernel": 3 * random(3, 4), "bias": 3 * random(4, seed=1)},
    "norm": {"scale": 3 * random(4, seed=2)},
    "cls": 3 * random(1, 1, 4, seed=3),
  }
  leaves, tree = jax.tree.flatten(params)
  names = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(params)]
  theirs = [torch.from_numpy(x).double().requires_grad_() for x in leaves]
  decayed = [
    p for p, n in zip(theirs, names, strict=True) if "kernel" in n or "cls" in n
  ]
  assert len(decayed) == 2
  others = [p for p in theirs if not any(p is d for d in decayed)]
  their_optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0}],
    lr=schedule["peak"],
    betas=(0.8, 0.9),
    eps=1e-3,
  )
  their_schedule = torch.optim.lr_scheduler.LambdaLR(
    their_optimizer, lambda step: rate_by_hand(step, **schedule) / schedule["peak"]
  )
  optimizer = adamw(
    learning_rate=0.1,
    num_steps=20,
    warmup_steps=5,
    final_learning_rate=0.01,
    b1=0.8,
    b2=0.9,
    epsilon=1e-3,
    weight_decay=0.3,
  )

  @jax.jit
  def step(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  for i in range(20):
    grads = [random(*x.shape, seed=100 * i + k) for k, x in enumerate(leaves)]
    params, state = step(params, state, jax.tree.unflatten(tree, grads))
    for parameter, grad in zip(theirs, grads, strict=True):
      parameter.grad = torch.from_numpy(grad).double()
    their_optimizer.step()
    their_schedule.step()
  for ours, expected, start in zip(
    jax.tree.leaves(params), theirs, leaves, strict=True
  ):
    # Twenty updates in float32 against float64.
    np.testing.assert_allclose(ours, expected.detach().numpy(), rtol=0, atol=3e-6)
    assert np.abs(ours - start).max() > 0.1


@pytest.mark.parametrize(("clip_norm", "factor"), [(2.5, 0.5), (10.0, 1.0), (0.0, 1.0)])
def test_clipping_is_by_the_global_norm(clip_norm, factor):
  # An epsilon of 1 lets the gradient's size show: the first update is g / (|g| + 1).
  optimizer = adamw(
    learning_rate=1.0, num_steps=9, epsilon=1.0, weight_decay=0.0, clip_norm=clip_norm
  )
  grads = {"a": jnp.array([0.0, 3.0]), "b": jnp.array([[-4.0]])}
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(grads), grads)
  for name, grad in grads.items():
    clipped = factor * np.asarray(grad)
    expected = -clipped / (np.abs(clipped) + 1)
    np.testing.assert_allclose(updates[name], expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("scan", [False, True])
def test_clipping_of_each_parameter_by_itself(scan):
  """Norms of 5, 0.5 and, of two blocks, 2 and 8, to at most 2.5; see DINO's authors."""
  kernels = [np.full((2, 2), size, np.float32) for size in (1.0, -4.0)]
  blocks = {f"block_{i}": {"kernel": kernel} for i, kernel in enumerate(kernels)}
  grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5]), "net": blocks}
  grads = stack_blocks(grads) if scan else grads
  optimizer = adamw(
    learning_rate=1.0, num_steps=9, epsilon=1.0, weight_decay=0.0, clip_each=2.5
  )
  updates = optimizer.update(grads, optimizer.init(grads), grads)[0]
  updates = unstack_blocks(updates) if scan else updates
  clipped = {"a": grads["a"] / 2, "b": grads["b"]}
  net = {"block_0": kernels[0], "block_1": kernels[1] * 2.5 / 8}
  for ours, grad in (
    *((updates[name], grad) for name, grad in clipped.items()),
    *((updates["net"][name]["kernel"], grad) for name, grad in net.items()),
  ):
    np.testing.assert_allclose(ours, -grad / (np.abs(grad) + 1), rtol=3e-6)


def test_decays_by_path():
  """Decay alone: the first expression applies, before that of `no_decay`."""
  params = {
    "head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    "rest": jnp.ones(2),
  }
  keywords = dict(learning_rate=1.0, num_steps=9, weight_decay=0.2, b2=0.5)
  factors = {"head/": 0.25, "norm/scale": 0.5}
  optimizer = adamw(**keywords, decay_factors=factors)
  nothing = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(nothing, optimizer.init(params), params)
  found = jax.tree.map(lambda x: float(-x[0]), updates)
  expected = {
    "head": {"kernel": 0.05, "bias": 0.05},
    "norm": {"scale": 0.1, "bias": 0.0},
    "rest": 0.2,
  }
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), found, expected
  )
  # Without a part that differs it is the same optimizer.
  grads = jax.tree.map(lambda x: 0.3 * x, params)
  plain, same = (
    run_of(adamw(**keywords, final_weight_decay=0.4, **more), params, [grads] * 3)
    for more in ({}, {"decay_factors": {"rest": 1.0}})
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), same, plain)
  with pytest.raises(UserError, match="optimizer.decay_factors: 'tail' is in the path"):
    run_of(adamw(**keywords, decay_factors={"tail": 2.0}), params, [grads])


@functools.cache
def classifier_shapes(scan):
  objective = classification(
    num_classes=2,
    system=dict(
      name="mae",
      image_size=4,
      channels=1,
      patch_size=2,
      encoder={"width": 4, "depth": 3, "heads": 1},
    ),
    positions="learned_sincos",
    block_bias=True,
    scan=scan,
  )
  batch = {"image": jnp.zeros((1, 4, 4, 1)), "label": jnp.zeros(1, int)}
  shapes = jax.eval_shape(objective.init, jax.random.key(0), batch).params
  # One layer of each block is enough, and compiles in a third of the time.
  blocks = shapes["encoder"]["transformer"]
  for name, block in blocks.items():
    blocks[name] = {"mlp": {"up": block["mlp"]["up"]}}
  return shapes


def fill(shapes, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def updates_of(params, grads, **keywords):
  optimizer = adamw(learning_rate=0.1, num_steps=9, weight_decay=0.5, **keywords)
  return jax.jit(optimizer.update)(grads, optimizer.init(params), params)[0]


def test_layer_decay():
  """As timm's lr_scale: decay^(layers above), of step and weight decay together."""
  params, grads = (fill(classifier_shapes(False), seed) for seed in (0, 1))
  plain, scaled = (updates_of(params, grads, layer_decay=x) for x in (1.0, 0.5))
  factors = {
    "['encoder']['embed']": 0.5**4,
    "['encoder']['cls']": 0.5**4,
    "['encoder']['positions']": 0.5**4,
    **{
      f"['encoder']['{network}']['block_{i}']": 0.5 ** (3 - i)
      for network in ("biases", "transformer")
      for i in range(3)
    },
    "['norm']": 1.0,
    "['head']": 1.0,
  }
  seen = set()

  def compare(path, ours, whole):
    name = jax.tree_util.keystr(path)
    layer = next(prefix for prefix in factors if name.startswith(prefix))
    seen.add(layer)
    np.testing.assert_array_equal(ours, factors[layer] * whole, name)

  jax.tree.map_with_path(compare, scaled, plain)
  assert seen == set(factors)


def test_layer_decay_of_scanned_blocks():
  params, grads = (fill(classifier_shapes(False), seed) for seed in (0, 1))
  separate = updates_of(params, grads, layer_decay=0.65)
  assert jax.tree.map(jnp.shape, stack_blocks(params)) == jax.tree.map(
    jnp.shape, classifier_shapes(True)
  )
  stacked = updates_of(stack_blocks(params), stack_blocks(grads), layer_decay=0.65)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    unstack_blocks(stacked),
    separate,
  )


def test_layer_decay_of_stages():
  """By the layers' numbers in SimMIM's and in SparK's code."""
  swin = {
    "encoder/embed/kernel": 4,
    "encoder/embed_norm/scale": 4,
    "encoder/stage_0_block_0/attention/out/kernel": 3,
    "encoder/merging_1/dense/kernel": 3,
    "encoder/stage_1_block_0/mlp/up/kernel": 2,
    "encoder/stage_1_block_1/relative/table": 1,
    "encoder/stage_1_norm_1/scale": 1,
    "encoder/norm/scale": 0,
    "head/kernel": 0,
  }
  resnet = {
    "encoder/network/stem/kernel": 4,
    "encoder/network/stem_norm/scale": 4,
    "encoder/network/stage_0_block_2/conv_0/kernel": 3,
    "encoder/network/stage_1_block_0/shortcut/kernel": 2,
    "encoder/network/reduce_1/kernel": 2,
    "encoder/network/reduce_1_norm/scale": 2,
    "encoder/network/stage_1_block_1/conv_0/kernel": 2,
    "encoder/network/stage_1_block_2/conv_0/kernel": 1,
    "norm/scale": 0,
  }
  for layers, blocks in ((swin, ()), (resnet, (3, 2))):
    scale = scale_by_layer(0.5, blocks)
    found, _ = scale.update(nested(layers), scale.init(None))
    for name, above in layers.items():
      value = functools.reduce(lambda tree, key: tree[key], name.split("/"), found)
      assert float(value[0]) == 0.5**above, name
  with pytest.raises(UserError, match=r"layer_blocks=\(3,\): expected one for each"):
    scale_by_layer(0.5, (3,)).update(nested(resnet), optax.EmptyState())


def nested(names):
  """A tree of ones with these paths."""
  tree = {}
  for name in names:
    *parts, last = name.split("/")
    at = tree
    for part in parts:
      at = at.setdefault(part, {})
    at[last] = jnp.ones(1)
  return tree


def test_lamb_as_timm_has_it_for_finetuning():
  """Two steps with moments as they are, and all arrays scaled to their norms."""
  params = {"kernel": np.float32([[3.0, 4.0]]), "bias": np.float32([0.6, 0.8])}
  grads = {"kernel": np.float32([[1.0, -2.0]]), "bias": np.float32([2.0, 0.5])}
  keywords = dict(b1=0.8, b2=0.9, epsilon=1e-9, weight_decay=0.3)
  optimizer = lamb(
    learning_rate=0.1,
    num_steps=10**6,
    bias_correction=False,
    scale_all=True,
    **keywords,
  )
  state, found, update = optimizer.init(params), params, jax.jit(optimizer.update)
  moments = {name: (0.0, 0.0) for name in params}
  expected = {name: np.float64(value) for name, value in params.items()}
  for _ in range(2):
    updates, state = update(grads, state, found)
    found = {name: found[name] + updates[name] for name in found}
    for name, grad in grads.items():
      first, second = moments[name]
      first, second = 0.8 * first + 0.2 * grad, 0.9 * second + 0.1 * grad**2
      moments[name] = first, second
      step = first / np.sqrt(second) + (0.3 * expected[name] if name == "kernel" else 0)
      ratio = np.linalg.norm(expected[name]) / np.linalg.norm(step)
      expected[name] = expected[name] - 0.1 * ratio * step
  for name in params:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_layer_decay_of_two_stacks(scan):
  """An encoder of 3 blocks and a decoder of 1, whose block is its last layer."""
  blocks = {f"block_{i}": {"kernel": np.ones(2, np.float32)} for i in range(3)}
  params = {
    "encoder": {"transformer": blocks},
    "decoder": {"transformer": {"block_0": blocks["block_0"]}},
  }
  params = stack_blocks(params) if scan else params
  plain, scaled = (updates_of(params, params, layer_decay=x) for x in (1.0, 0.5))
  ratio = jax.tree.map(lambda a, b: a / b, scaled, plain)["decoder"]["transformer"]
  np.testing.assert_allclose(ratio["blocks" if scan else "block_0"]["kernel"], 0.5)


def test_layer_decay_without_blocks_is_refused():
  with pytest.raises(UserError, match="layer_decay"):
    updates_of({"kernel": jnp.ones(2)}, {"kernel": jnp.ones(2)}, layer_decay=0.5)


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"warmup_steps": 10}, "optimizer.warmup_steps=10: .* fewer than num_steps=10"),
    ({"warmup_steps": -1}, "optimizer.warmup_steps=-1"),
    ({"num_steps": 0}, "num_steps=0"),
    ({"cycles": 3}, "optimizer.cycles=3: expected a divisor of num_steps=10"),
    ({"cycles": 2, "warmup_steps": 5}, "fewer than num_steps=10 / cycles=2"),
    ({"learning_rate": -1.0}, "optimizer.learning_rate=-1.0"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ({"warmup_steps": 4, "drop_at": 3}, "optimizer.drop_at=3"),
    ({"drop_at": 10}, "optimizer.drop_at=10.*less than num_steps=10"),
    ({"clip_norm": -1.0}, "clip_norm=-1.0"),
    ({"clip_each": -1.0}, "clip_each=-1.0"),
    ({"state_dtype": "float16"}, "optimizer.state_dtype='float16': expected 'float32'"),
  ],
  ids=str,
)
def test_hyperparameters_out_of_range_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    adamw(**{"learning_rate": 1.0, "num_steps": 10, **wrong})


def test_weight_decay_rises_along_a_cosine():
  optimizer = adamw(
    learning_rate=1.0,
    final_learning_rate=1.0,
    num_steps=10,
    weight_decay=0.1,
    final_weight_decay=0.5,
  )
  params, nothing = {"kernel": jnp.ones(2)}, {"kernel": jnp.zeros(2)}
  state, decays = optimizer.init(params), []
  for _ in range(12):
    updates, state = optimizer.update(nothing, state, params)
    decays.append(-float(updates["kernel"][0]))
  steps = np.minimum(np.arange(12), 10)
  expected = 0.5 - 0.4 * (1 + np.cos(np.pi * steps / 10)) / 2
  np.testing.assert_allclose(decays, expected, rtol=1e-6)


def run_of(optimizer, params, grads):
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  for grad in grads:
    updates, state = update(grad, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_lamb_by_hand():
  """Algorithm 2 of arXiv:1904.00962, its decay along a cosine; a bias as in Adam."""
  params = {"kernel": random(3, 2), "bias": random(2, seed=1)}
  grads = [
    {"kernel": random(3, 2, seed=i), "bias": random(2, seed=9 + i)} for i in (2, 3)
  ]
  found = run_of(
    lamb(
      learning_rate=0.1,
      num_steps=4,
      warmup_steps=2,
      initial_learning_rate=0.02,
      b1=0.8,
      b2=0.9,
      weight_decay=0.04,
      final_weight_decay=0.2,
    ),
    params,
    grads,
  )
  for name, p in params.items():
    p, m, v = p.astype(np.float64), 0, 0
    for i, grad in enumerate(grads):
      m = 0.8 * m + 0.2 * grad[name]
      v = 0.9 * v + 0.1 * np.square(grad[name], dtype=np.float64)
      update = (m / (1 - 0.8 ** (i + 1))) / (np.sqrt(v / (1 - 0.9 ** (i + 1))) + 1e-6)
      if name == "kernel":
        update = update + (0.2 - 0.16 * (1 + math.cos(math.pi * i / 4)) / 2) * p
        update = update * np.linalg.norm(p) / np.linalg.norm(update)
      p = p - (0.02, 0.06)[i] * update
    np.testing.assert_allclose(found[name], p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stacked", [False, True])
def test_stable_adamw_by_hand(stacked):
  """Moments that begin as the gradient's; a sudden gradient shortens the step."""
  name = "transformer/blocks/kernel" if stacked else "kernel"
  params = {name: random(2, 3, 2), "bias": random(2, seed=1)}
  grads = [{n: random(*p.shape, seed=i) for n, p in params.items()} for i in (2, 3, 4)]
  grads[2] = {n: 9 * grad for n, grad in grads[2].items()}
  found = run_of(
    stable_adamw(
      learning_rate=0.1,
      num_steps=4,
      b1=0.8,
      b2=0.9,
      weight_decay=0.05,
      fully_decoupled=True,
      schedule="linear",
    ),
    params,
    grads,
  )
  for n, p in params.items():
    # Each block of a stack is an array of its own.
    parts = p.astype(np.float64) if stacked and n != "bias" else [p.astype(np.float64)]
    for j, part in enumerate(parts):
      m, v, steps = 0, 0, []
      for i, grad in enumerate(grads):
        grad = np.float64(grad[n][j] if part.shape != p.shape else grad[n])
        # As corrected moments follow from uncorrected ones.
        m = ((1 - 0.8**i) * 0.8 * m + 0.2 * grad) / (1 - 0.8 ** (i + 1))
        v = ((1 - 0.9**i) * 0.9 * v + 0.1 * grad**2) / (1 - 0.9 ** (i + 1))
        rms = np.sqrt(np.mean(grad**2 / np.maximum(v, 1e-12)))
        share = (1 - i / 4) / max(1, rms)
        decay = 0 if n == "bias" else 0.05
        part = part - share * (0.1 * m / (np.sqrt(v) + 1e-6) + decay * part)
        steps.append(rms)
      assert steps[2] > 1.1
      ours = found[n][j] if len(parts) > 1 else found[n]
      np.testing.assert_allclose(ours, part, rtol=2e-5, atol=1e-6)


def test_adamw_without_correction_by_hand():
  params, grads = {"kernel": random(3)}, [{"kernel": random(3, seed=i)} for i in (1, 2)]
  optimizer = adamw(
    learning_rate=0.1,
    num_steps=4,
    b1=0.8,
    b2=0.9,
    bias_correction=False,
    weight_decay=0.05,
    schedule="linear",
  )
  found = run_of(optimizer, params, grads)
  p, m, v = params["kernel"].astype(np.float64), 0, 0
  for i, grad in enumerate(grads):
    m = 0.8 * m + 0.2 * grad["kernel"]
    v = 0.9 * v + 0.1 * np.square(grad["kernel"], dtype=np.float64)
    p = p - 0.1 * (1 - i / 4) * (m / (np.sqrt(v) + 1e-8) + 0.05 * p)
  np.testing.assert_allclose(found["kernel"], p, rtol=1e-5, atol=1e-6)


def test_a_fully_decoupled_decay_does_not_follow_the_peak():
  """One step at the peak takes the decay off, whatever the peak is."""
  for rate in (0.1, 0.001):
    optimizer = adamw(
      learning_rate=rate, num_steps=9, weight_decay=0.25, fully_decoupled=True
    )
    found = run_of(
      optimizer, {"kernel": np.ones(3, np.float32)}, [{"kernel": np.zeros(3)}]
    )
    np.testing.assert_allclose(found["kernel"], 0.75, rtol=1e-6)
  with pytest.raises(UserError, match="expected a learning_rate above 0"):
    adamw(learning_rate=0.0, num_steps=9, fully_decoupled=True)


def test_sgd_is_torchs():
  torch = pytest.importorskip("torch")
  start, grads = random(3, 2), [random(3, 2, seed=i) for i in (1, 2, 3)]
  theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
  optimizer = torch.optim.SGD(
    [theirs], lr=1.0, momentum=0.9, nesterov=True, weight_decay=0.1
  )
  for i, grad in enumerate(grads):
    optimizer.param_groups[0]["lr"] = rate_by_hand(
      i, peak=0.5, warmup=1, total=4, final=0.1
    )
    theirs.grad = torch.from_numpy(grad)
    optimizer.step()
  found = run_of(
    sgd(
      learning_rate=0.5,
      num_steps=4,
      warmup_steps=1,
      final_learning_rate=0.1,
      weight_decay=0.1,
    ),
    {"kernel": start},
    [{"kernel": grad} for grad in grads],
  )
  np.testing.assert_allclose(found["kernel"], theirs.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [lamb, sgd])
@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"learning_rate": -1.0}, "optimizer.learning_rate=-1.0: expected at least 0"),
    ({"weight_decay": -1.0}, "optimizer.weight_decay=-1.0: expected at least 0"),
    ({"warmup_steps": 4}, "optimizer.warmup_steps=4: .* fewer than num_steps=4"),
  ],
  ids=str,
)
def test_mistakes_of_further_optimizers_are_named(make, wrong, message):
  with pytest.raises(UserError, match=message):
    make(**{"learning_rate": 0.1, "num_steps": 4, **wrong})
