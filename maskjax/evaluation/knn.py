"""Classification by nearest neighbors."""

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError


def knn_accuracy(
  train: np.ndarray,
  train_labels: np.ndarray,
  test: np.ndarray,
  test_labels: np.ndarray,
  *,
  neighbors: int = 20,
  temperature: float = 0.07,
  chunk: int = 256,
) -> float:
  """Accuracy of a vote of the nearest training examples by cosine similarity.

  Votes weigh exp(similarity / temperature)
  (https://arxiv.org/abs/1805.01978, section 3.4).

  Args:
    train: float [E, D].
    train_labels: int [E], from 0 on.
    test: float [F, D].
    test_labels: int [F].
    neighbors: how many vote.
    temperature: of their weights.
    chunk: test examples that are compared at once.

  Returns:
    Share of the test examples that are classified rightly.

  Example:
    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    >>> knn_accuracy(x, y, x + 0.1, y, neighbors=1)
    1.0
  """
  if not 1 <= neighbors <= len(train):
    raise UserError(
      f"neighbors={neighbors}: expected from 1 to the {len(train)} examples"
    )
  num_classes = int(train_labels.max()) + 1

  def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

  bank, votes = jnp.asarray(unit(train)), jax.nn.one_hot(train_labels, num_classes)

  @jax.jit
  def classify(x: jax.Array) -> jax.Array:
    similarity, nearest = jax.lax.top_k(x @ bank.T, neighbors)  # [chunk, k]
    weights = jnp.exp((similarity - 1) / temperature)
    return jnp.einsum("bk,bkc->bc", weights, votes[nearest]).argmax(axis=1)

  test = unit(test)
  missing = -len(test) % chunk  # one shape for all chunks
  padded = np.concatenate([test, np.zeros((missing, test.shape[1]), test.dtype)])
  predictions = [
    np.asarray(classify(padded[i : i + chunk])) for i in range(0, len(padded), chunk)
  ]
  return float((np.concatenate(predictions)[: len(test)] == test_labels).mean())
