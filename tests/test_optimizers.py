"""The optimizer against torch, and the step against sums written out."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskjax import config as configs
from maskjax import data, keys, objectives, resolve, sharding
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.models import stack_blocks, unstack_blocks
from maskjax.objectives import Variables, classification
from maskjax.training import adamw, fit, init_state, train_step
from maskjax.training.optimizers import lamb, round_at_random, sgd


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


@functools.cache
def classifier_shapes(scan):
  objective = classification(
    num_classes=2,
    image_size=4,
    channels=1,
    patch_size=2,
    encoder={"width": 4, "depth": 3, "heads": 1},
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
    "['encoder']['transformer']['block_0']": 0.5**3,
    "['encoder']['transformer']['block_1']": 0.5**2,
    "['encoder']['transformer']['block_2']": 0.5**1,
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
    ({"state_dtype": "float16"}, "optimizer.state_dtype='float16': expected 'float32'"),
  ],
  ids=str,
)
def test_hyperparameters_out_of_range_are_named(wrong, message):
  with pytest.raises(UserError, match=message):
    adamw(**{"learning_rate": 1.0, "num_steps": 10, **wrong})


# The step, with a regression whose examples weigh differently


class Regression:
  """The sum of weight * (x p - y)^2 over the sum of the weights."""

  def init(self, key, batch):
    del key
    count = {"calls": jnp.int32(0), "step": jnp.int32(-1), "params": jnp.zeros(3)}
    count["sum"] = jnp.float32(0)
    return Variables({"p": jnp.ones(batch["x"].shape[1])}, count)

  def loss(self, params, extra, batch, key):
    del extra
    noise = jax.vmap(jax.random.uniform)(keys.example_keys(key, batch))
    error = jnp.square(batch["x"] @ params["p"] - batch["y"])
    return Loss(
      (batch["weight"] * error).sum(),
      batch["weight"].sum(),
      {"noise": Mean.of(noise), "index": Mean.of(noise * batch["index"])},
      {"y": batch["y"].sum()},
    )

  def update_extra(self, params, extra, step, sums):
    calls = extra["calls"] + 1
    return {"calls": calls, "step": step, "params": params["p"], "sum": sums["y"]}


def make_batch(seed=0):
  weight = np.array([0, 10, 1, 0, 3, 20, 0.5, 1], np.float32)
  return {"x": random(8, 3, seed=seed), "y": random(8, seed=seed + 1), "weight": weight}


def loss_by_hand(p, batch):
  """The loss and its gradient."""
  batch = {name: np.asarray(rows, np.float64) for name, rows in batch.items()}
  error, share = batch["x"] @ p - batch["y"], batch["weight"] / batch["weight"].sum()
  return share @ error**2, 2 * (share * error) @ batch["x"]


@functools.cache
def compiled_step(microbatches=1, ema_decay=0.0):
  objective, optimizer = Regression(), optax.sgd(0.1)
  step = functools.partial(
    train_step,
    objective=objective,
    optimizer=optimizer,
    key=jax.random.key(0),
    microbatches=microbatches,
    ema_decay=ema_decay,
  )
  make = functools.partial(
    init_state, objective, optimizer, make_batch(), jax.random.key(0)
  )
  return make, jax.jit(step)


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_microbatches_of_uneven_weight_make_the_whole_batch(microbatches):
  make, step = compiled_step(microbatches)
  state, metrics = step(make(), make_batch())
  loss, gradient = loss_by_hand(np.ones(3), make_batch())
  # Sums of eight float32 numbers.
  np.testing.assert_allclose(state.params["p"], 1 - 0.1 * gradient, rtol=1e-6)
  np.testing.assert_allclose(metrics["loss"].value(), loss, rtol=1e-6)
  assert float(metrics["loss"].weight) == 35.5
  np.testing.assert_allclose(
    metrics["grad_norm"].value(), np.linalg.norm(gradient), rtol=1e-6
  )
  assert int(state.step) == 1
  # Each row draws its own numbers in whichever part it is.
  _, whole = compiled_step(1)[1](make(), make_batch())
  for name in ("noise", "index"):
    assert float(metrics[name].weight) == 8
    np.testing.assert_allclose(metrics[name].sum, whole[name].sum, rtol=1e-6)


def test_means_of_microbatches_would_be_something_else():
  """The check above can fail: what dividing each part would have given."""
  parts = [{n: rows[i::2] for n, rows in make_batch().items()} for i in range(2)]
  wrong = np.mean([loss_by_hand(np.ones(3), part)[1] for part in parts], axis=0)
  right = loss_by_hand(np.ones(3), make_batch())[1]
  assert np.abs(wrong - right).max() > 0.1 * np.abs(right).max()


def test_a_batch_without_weight_changes_nothing():
  make, step = compiled_step()
  before = make()
  after, metrics = step(before, {**make_batch(), "weight": np.zeros(8, np.float32)})
  np.testing.assert_array_equal(after.params["p"], before.params["p"])
  assert float(metrics["loss"].value()) == float(metrics["grad_norm"].value()) == 0


def test_average_and_extra_follow_the_parameters():
  make, step = compiled_step(ema_decay=0.9)
  state = make(ema=True)
  average = p = np.ones(3)
  np.testing.assert_array_equal(state.ema["p"], average)
  for i in range(3):
    batch = make_batch(seed=10 * i)
    state, _ = step(state, batch)
    p = p - 0.1 * loss_by_hand(p, batch)[1]
    average = 0.9 * average + 0.1 * p
    np.testing.assert_allclose(state.params["p"], p, rtol=0, atol=3e-6)
    np.testing.assert_allclose(state.ema["p"], average, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(state.best_params["p"], state.ema["p"])
    # Once an optimizer step, after it, with the number of steps done before it.
    assert (int(state.extra["calls"]), int(state.extra["step"])) == (i + 1, i)
    np.testing.assert_array_equal(state.extra["params"], state.params["p"])
  assert np.abs(average - p).max() > 1e-2


def test_microbatches_update_extra_once():
  make, step = compiled_step(4)
  batch = make_batch()
  extra = step(make(), batch)[0].extra
  assert int(extra["calls"]) == 1
  assert float(extra["sum"]) == pytest.approx(batch["y"].sum(), rel=1e-5)


def test_without_an_average_there_is_none():
  make, step = compiled_step()
  state, _ = step(make(), make_batch())
  assert state.ema is None
  np.testing.assert_array_equal(state.best_params["p"], state.params["p"])


def test_random_numbers_follow_the_step_and_the_index():
  make, step = compiled_step()
  batch = {**make_batch(), "index": np.arange(8)}
  first, metrics = step(make(), batch)
  noise = float(metrics["noise"].sum)
  again = step(make(), batch)[1]
  assert float(again["noise"].sum) == noise
  later = step(first, batch)[1]
  assert float(later["noise"].sum) != noise
  others = step(make(), {**batch, "index": np.arange(8, 16)})[1]
  assert float(others["noise"].sum) != noise


# The optimizer's state in bfloat16


def test_rounding_at_random_keeps_the_mean():
  """Each number goes to either neighbour as often as it is near to it."""
  rng = np.random.default_rng(0)
  x = np.float32(rng.normal(size=200) * 10.0 ** rng.integers(-30, 30, 200))
  draws = 4000
  tiled = jnp.broadcast_to(x, (draws, len(x)))
  rounded = np.float64(jax.jit(round_at_random)(jax.random.key(0), tiled))
  bits = x.view(np.uint32)
  below = (bits & 0xFFFF0000).view(np.float32).astype(np.float64)
  above = ((bits & 0xFFFF0000) + 0x10000).view(np.float32).astype(np.float64)
  assert ((rounded == below) | (rounded == above)).all()
  share = (np.float64(x) - below) / (above - below)
  # Hoeffding's bound over all 200, which one seed in 10^9 passes.
  bound = math.sqrt(math.log(2 * 200 * 1e9) / (2 * draws))
  assert np.abs((rounded == above).mean(axis=0) - share).max() < bound


def test_rounding_leaves_what_bfloat16_holds():
  x = jnp.array([0.0, -0.0, 1.0, -3.0, 2.0**-126, jnp.inf, -jnp.inf, jnp.nan])
  rounded = round_at_random(jax.random.key(0), x)
  assert rounded.dtype == jnp.bfloat16
  np.testing.assert_array_equal(rounded.astype(jnp.float32), x)
  assert not np.isnan(
    np.float32(round_at_random(jax.random.key(1), jnp.full(9, 3e38)))
  ).any()


def second_moment(optimizer, steps):
  """The second moment of 4000 parameters after steps of the gradient 1, then 2."""
  params = {"kernel": jnp.zeros(4000)}
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  for step in range(steps):
    grads = {"kernel": jnp.full(4000, 1.0 if step < steps // 2 else 2.0)}
    _, state = update(grads, state, params)
  return state, np.float64(optax.tree.get(state, "nu")["kernel"])


def test_second_moment_in_bfloat16_follows_the_one_in_float32():
  keywords = {"learning_rate": 0.1, "num_steps": 600, "b2": 0.999}
  _, expected = second_moment(adamw(**keywords), 400)
  state, found = second_moment(adamw(**keywords, state_dtype="bfloat16"), 400)
  kinds = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim}
  assert kinds == {jnp.dtype(jnp.bfloat16)}
  # A step rounds by at most 2^-7 of the moment, at random: 400 add up to 0.16 of it
  # at worst in one parameter, and in the mean of 4000 to 64 times less.
  assert found.mean() == pytest.approx(expected[0], rel=0.01)
  assert found.std() < 0.16 * expected[0]
  # What rounding to nearest would have given: once (1 - b2) of the square is less
  # than half a step of bfloat16, the moment stays where it is.
  naive = np.float32(0)
  for step in range(400):
    square = 1.0 if step < 200 else 4.0
    moment = jnp.bfloat16(0.999 * float(naive) + 0.001 * square)
    naive = np.float32(moment)
  assert abs(naive / expected[0] - 1) > 0.1


def test_bfloat16_state_gives_the_same_numbers_again():
  runs = [
    second_moment(adamw(learning_rate=0.1, num_steps=9, state_dtype="bfloat16"), 4)[1]
    for _ in range(2)
  ]
  np.testing.assert_array_equal(*runs)
  assert len(np.unique(runs[0])) > 1


def test_digits_train_as_well_with_bfloat16_state():
  config = configs.load("configs/image/mae.py:digits")
  source = data.digits(split="train")
  transforms = [data.to_float, functools.partial(data.normalize, mean=0.3, std=0.37)]
  losses = {}
  for dtype in ("float32", "bfloat16"):
    objective = resolve.build(objectives, config.objective)
    seen = []

    class Record:
      def write(self, step, values, seen=seen):
        seen.append(values["train/loss"])

      def advance(self, step):
        pass

    batches = data.Pipeline(
      source=source, batch_size=128, transforms=transforms, num_threads=0
    )
    fit(
      objective,
      batches,
      optimizer=adamw(
        learning_rate=5e-3, num_steps=60, warmup_steps=15, state_dtype=dtype
      ),
      num_steps=60,
      mesh=sharding.make_mesh(devices=jax.devices()[:1]),
      writer=Record(),
      log_every=15,
    )
    losses[dtype] = np.array(seen)
  assert losses["float32"][-1] < 0.75 * losses["float32"][0]
  np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)


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
      p = p - rate_by_hand(i, peak=0.1, warmup=0, total=4, final=0) * update
    np.testing.assert_allclose(found[name], p, rtol=1e-5, atol=1e-6)


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
