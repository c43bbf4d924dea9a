"""Errors of tokens, and their sums and weights, which a step divides once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.normalization import unit


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean that is not divided yet, so that parts of a batch can be added.

  Attributes:
    sum: float32 scalar.
    weight: float32 scalar, what to divide the sum by.
  """

  sum: Array
  weight: Array

  @classmethod
  def of(cls, values: Array, where: Array | None = None) -> "Mean":
    """The mean of all values, or of those where `where` is True.

    Example:
      >>> float(Mean.of(jnp.array([1.0, 3.0, 8.0])).value())
      4.0
    """
    values = values.astype(jnp.float32)
    if where is None:
      return cls(values.sum(), jnp.float32(values.size))
    where = jnp.broadcast_to(where, values.shape)
    return cls(jnp.where(where, values, 0).sum(), where.sum(dtype=jnp.float32))

  def __add__(self, other: "Mean") -> "Mean":
    return Mean(self.sum + other.sum, self.weight + other.weight)

  def value(self) -> Array:
    """The mean; 0 where nothing had weight."""
    return self.sum / jnp.where(self.weight == 0, 1, self.weight)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loss:
  """What an objective computes of a batch.

  The loss is `sum / weight`, divided by the training step alone: the mean of
  two microbatches' means is wrong as soon as they mask different numbers of
  tokens.

  Attributes:
    sum: float32 scalar, differentiated by the step.
    weight: float32 scalar, never differentiated; usually the masked tokens.
    metrics: further means to report beside the loss, by name.
    sums: what `update` is given, by name: arrays, or trees of them, that are sums
      over examples, so that those of microbatches can be added.
  """

  sum: Array
  weight: Array
  metrics: Mapping[str, Mean] = dataclasses.field(default_factory=dict)
  sums: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def of(cls, mean: Mean, **metrics: Mean) -> "Loss":
    """The loss that a mean over tokens or examples makes."""
    return cls(mean.sum, mean.weight, metrics)

  def value(self) -> Array:
    """The loss itself, for use outside a training step."""
    return Mean(self.sum, self.weight).value()

  def means(self) -> dict[str, Mean]:
    """All that is reported of it: `loss`, and the metrics by name.

    Raises:
      UserError: a metric has a name that a step reports itself.
    """
    for name in ("loss", "grad_norm"):
      if name in self.metrics:
        raise UserError(
          f"a metric is called {name!r}: expected another name, since a step reports "
          "that itself"
        )
    return {"loss": Mean(self.sum, self.weight), **self.metrics}


def squared_error(predictions: Array, targets: Array) -> Array:
  """Mean squared error of each token, in float32: two [..., D] to [...].

  Example:
    >>> float(squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    2.0
  """
  chex.assert_equal_shape([predictions, targets])
  difference = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  return jnp.square(difference).mean(axis=-1)


def cosine_error(predictions: Array, targets: Array) -> Array:
  """One less the cosine of two vectors of each token, in float32: [..., D] to [...].

  Example:
    >>> print(cosine_error(jnp.array([0.0, 2.0]), jnp.array([0.0, 3.0])))
    0.0
  """
  chex.assert_equal_shape([predictions, targets])
  return 1 - (unit(predictions) * unit(targets)).sum(axis=-1)


def absolute_error(predictions: Array, targets: Array) -> Array:
  """Mean absolute error (L1) of each token, in float32: two [..., D] to [...].

  Example:
    >>> float(absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    1.0
  """
  chex.assert_equal_shape([predictions, targets])
  difference = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  return jnp.abs(difference).mean(axis=-1)


def smooth_l1(predictions: Array, targets: Array, *, beta: float = 1.0) -> Array:
  """Mean error of each token, squared near 0 and absolute far from it, in float32.

  A difference d counts d^2 / (2 beta) below `beta` and |d| - beta / 2 above
  (https://arxiv.org/abs/1504.08083, equation 3, for a beta of 1).

  Args:
    predictions: [..., D].
    targets: [..., D].
    beta: where the square ends.

  Returns:
    [...].

  Example:
    >>> float(smooth_l1(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    0.75
  """
  chex.assert_equal_shape([predictions, targets])
  difference = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  far = jnp.abs(difference)
  near = jnp.square(difference) / (2 * beta)
  return jnp.where(far < beta, near, far - beta / 2).mean(axis=-1)


def cross_entropy(logits: Array, targets: Array) -> Array:
  """Cross-entropy with soft targets, in float32 nats: two [..., K] to [...].

  Example:
    >>> print(f"{cross_entropy(jnp.zeros(4), jnp.array([0.0, 1.0, 0.0, 0.0])):.4f}")
    1.3863
  """
  chex.assert_equal_shape([logits, targets])
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  return -(targets * log_p).sum(axis=-1)
