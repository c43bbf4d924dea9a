"""The linear probe."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

Weights = tuple[Array, Array]


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

  Features are standardised by the training set's statistics, as MAE's probe does
  by a batch normalisation without parameters; the regression is fitted to all of
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
  mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
  x, y = jnp.asarray((train - mean) / deviation, jnp.float32), jnp.asarray(train_labels)
  kernel, bias = _solve(x, y, int(train_labels.max()) + 1, l2, steps)
  logits = (test - mean) / deviation @ np.asarray(kernel) + np.asarray(bias)
  return float((logits.argmax(axis=1) == test_labels).mean())


@functools.partial(jax.jit, static_argnums=2)
def _solve(x: Array, y: Array, classes: int, l2: float, steps: int) -> Weights:
  """The kernel [D, classes] and bias [classes] after some steps of L-BFGS."""
  solver = optax.lbfgs()

  def loss(weights: Weights) -> Array:
    kernel, bias = weights
    error = optax.softmax_cross_entropy_with_integer_labels(x @ kernel + bias, y)
    return error.mean() + l2 / 2 * jnp.square(kernel).sum()

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
