"""Linear probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

Weights = tuple[Array, Array]
Carry = tuple[Weights, optax.OptState]


def linear_probe_accuracy(
  train: np.ndarray,
  train_labels: np.ndarray,
  test: np.ndarray,
  test_labels: np.ndarray,
  *,
  l2: float = 1e-4,
  steps: int = 300,
) -> float:
  """Accuracy of multinomial logistic regression on frozen features.

  Features are standardized by the training set's statistics, as MAE's probe does
  by a batch normalization without parameters; the regression is fitted to all of
  them at once by L-BFGS, so that there is no learning rate to choose.

  Args:
    train: float [E, D].
    train_labels: int [E], from 0 on.
    test: float [F, D].
    test_labels: int [F].
    l2: weight of half the squared norm of the coefficients.
    steps: steps of L-BFGS.

  Returns:
    Share of the test examples that are classified rightly.

  Example:
    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    >>> linear_probe_accuracy(x, y, x, y, steps=5)
    1.0
  """
  x_train, x_test = _standardized(train, test)
  classes = int(train_labels.max()) + 1
  weights = _solve(x_train, jnp.asarray(train_labels), classes, l2, steps)
  return _accuracy(weights, x_test, test_labels)


def lars_probe_accuracy(
  train: np.ndarray,
  train_labels: np.ndarray,
  test: np.ndarray,
  test_labels: np.ndarray,
  *,
  epochs: int = 90,
  batch_size: int = 16384,
  learning_rate: float = 0.1,
  warmup_epochs: int = 10,
  seed: int = 0,
) -> float:
  """Accuracy of a linear classifier trained as MAE's table 10 has it.

  LARS with momentum 0.9 and no weight decay, a warm-up and a cosine
  (https://arxiv.org/abs/2111.06377, appendix A). It stops before it converges: where
  a few directions of the features dominate, it is far below `linear_probe_accuracy`.
  Meant for data sets of at least some ten thousand examples.

  Args:
    train: float [E, D], standardized like those of `linear_probe_accuracy`.
    train_labels: int [E], from 0 on.
    test: float [F, D].
    test_labels: int [F].
    epochs: passes over the training set.
    batch_size: examples a step, or all where there are fewer.
    learning_rate: its peak for 256 examples a step; grows with the batch.
    warmup_epochs: passes over which the rate rises from 0.
    seed: of the first weights and the order of the examples.

  Returns:
    Share of the test examples that are classified rightly.
  """
  x_train, x_test = _standardized(train, test)
  classes = int(train_labels.max()) + 1
  batch_size = min(batch_size, len(x_train))
  per_epoch = len(x_train) // batch_size
  optimizer = optax.lars(
    optax.warmup_cosine_decay_schedule(
      init_value=0.0,
      peak_value=learning_rate * batch_size / 256,
      warmup_steps=warmup_epochs * per_epoch,
      decay_steps=epochs * per_epoch,
    ),
    momentum=0.9,
  )

  @jax.jit
  def step(carry: Carry, x: Array, y: Array) -> Carry:
    weights, state = carry
    updates, state = optimizer.update(jax.grad(_loss)(weights, x, y), state, weights)
    return optax.apply_updates(weights, updates), state

  rng = np.random.default_rng(seed)
  kernel = 0.01 * rng.standard_normal((x_train.shape[1], classes), np.float32)
  weights = (jnp.asarray(kernel), jnp.zeros(classes))
  carry = (weights, optimizer.init(weights))
  labels = jnp.asarray(train_labels)
  for _ in range(epochs):
    order = rng.permutation(len(x_train))[: per_epoch * batch_size]
    for rows in order.reshape(per_epoch, batch_size):
      carry = step(carry, x_train[rows], labels[rows])
  return _accuracy(carry[0], x_test, test_labels)


def _standardized(train: np.ndarray, test: np.ndarray) -> tuple[Array, Array]:
  """Both by the training set's statistics."""
  mean, std = train.mean(axis=0), train.std(axis=0) + 1e-6
  x_train, x_test = ((x - mean) / std for x in (train, test))
  return jnp.asarray(x_train, jnp.float32), jnp.asarray(x_test, jnp.float32)


def _accuracy(weights: Weights, test: Array, labels: np.ndarray) -> float:
  kernel, bias = weights
  return float((np.asarray(test @ kernel + bias).argmax(axis=1) == labels).mean())


def _loss(weights: Weights, x: Array, y: Array) -> Array:
  kernel, bias = weights
  return optax.softmax_cross_entropy_with_integer_labels(x @ kernel + bias, y).mean()


@functools.partial(jax.jit, static_argnums=2)
def _solve(x: Array, y: Array, classes: int, l2: float, steps: int) -> Weights:
  """The kernel [D, classes] and bias [classes] after some steps of L-BFGS."""
  solver = optax.lbfgs()

  def loss(weights: Weights) -> Array:
    return _loss(weights, x, y) + l2 / 2 * jnp.square(weights[0]).sum()

  value_and_grad = optax.value_and_grad_from_state(loss)

  def step(_: int, carry: tuple) -> tuple:
    weights, state = carry
    value, grad = value_and_grad(weights, state=state)
    updates, state = solver.update(
      grad, state, weights, value=value, grad=grad, value_fn=loss
    )
    return optax.apply_updates(weights, updates), state

  start = (jnp.zeros((x.shape[1], classes)), jnp.zeros(classes))
  return jax.lax.fori_loop(0, steps, step, (start, solver.init(start)))[0]
