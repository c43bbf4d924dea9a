"""The step against sums written out, of examples that weigh differently."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.objectives import Variables
from maskjax.objectives.objective import valid
from maskjax.training import init_state, train_step
from maskjax.training.step import rows_that_count


def test_a_metric_has_a_name_of_its_own():
  mean = Mean.of(jnp.ones(3))
  assert list(Loss.of(mean, patches=mean).means()) == ["loss", "patches"]
  for name in ("loss", "grad_norm"):
    with pytest.raises(UserError, match=f"a metric is called '{name}': expected"):
      Loss.of(mean, **{name: mean}).means()


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Regression:
  """The sum of weight * (x p - y)^2 over the sum of the weights."""

  def init(self, key, batch):
    del key
    count = {"calls": jnp.int32(0), "step": jnp.int32(-1), "params": jnp.zeros(3)}
    count["sum"] = jnp.float32(0)
    return Variables({"p": jnp.ones(batch["x"].shape[1])}, count)

  def loss(self, variables, batch, step):
    noise = jax.vmap(jax.random.uniform)(keys.example_keys(step.key, batch))
    error = jnp.square(batch["x"] @ variables.params["p"] - batch["y"])
    weight = batch["weight"] * valid(batch)
    return Loss(
      (weight * error).sum(),
      weight.sum(),
      {"noise": Mean.of(noise), "index": Mean.of(noise * batch["index"])},
      {"y": batch["y"].sum()},
    )

  def update(self, variables, batch, step, sums):
    params, extra = variables
    new = {"calls": extra["calls"] + 1, "step": step.number, "sum": sums["y"]}
    return Variables(params, {**new, "params": params["p"]})


def make_batch(seed=0):
  weight = np.array([0, 10, 1, 0, 3, 20, 0.5, 1], np.float32)
  return {"x": random(8, 3, seed=seed), "y": random(8, seed=seed + 1), "weight": weight}


def loss_by_hand(p, batch):
  """The loss and its gradient."""
  batch = {name: np.asarray(rows, np.float64) for name, rows in batch.items()}
  error, share = batch["x"] @ p - batch["y"], batch["weight"] / batch["weight"].sum()
  return share @ error**2, 2 * (share * error) @ batch["x"]


@functools.cache
def compiled_step(microbatches=1, ema_decay=0.0, batch_warmup=(0, 0)):
  objective, optimizer = Regression(), optax.sgd(0.1)
  step = functools.partial(
    train_step,
    objective=objective,
    optimizer=optimizer,
    key=jax.random.key(0),
    num_steps=4,
    microbatches=microbatches,
    ema_decay=ema_decay,
    batch_warmup=batch_warmup,
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


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_warm_up_of_the_batch_counts_its_first_rows(microbatches):
  make, step = compiled_step(microbatches, batch_warmup=(2, 3))
  state = make()
  for count in (2, 4, 6, 8):
    before = np.asarray(state.params["p"], np.float64)
    state, metrics = step(state, make_batch())
    first = {name: rows[:count] for name, rows in make_batch().items()}
    loss, gradient = loss_by_hand(before, first)
    np.testing.assert_allclose(metrics["loss"].value(), loss, rtol=1e-5)
    np.testing.assert_allclose(state.params["p"], before - 0.1 * gradient, rtol=1e-5)
  with pytest.raises(UserError, match="expected from 1 to 8 rows"):
    rows_that_count((9, 3), 8, 0)


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
  assert state.variables == Variables(state.params, state.extra)


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
