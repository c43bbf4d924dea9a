"""Features of whole data sets, for the probes."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maskjax import sharding

Batch = Mapping[str, Array]
Batches = Callable[[int], Iterator[Mapping[str, np.ndarray]]]


def evaluation_batches(batches: Batches, mesh: Mesh) -> Iterator[dict[str, Array]]:
  """Goes once over data, as global arrays on the mesh.

  Args:
    batches: a `maskjax.data.Pipeline` with `repeat=False`, or a function like it.
    mesh: the devices.
  """
  with contextlib.ExitStack() as stack:
    stream = batches(0)
    if hasattr(stream, "close"):
      stack.callback(stream.close)
    for batch in stream:
      yield sharding.global_batch(mesh, batch)


def pooled_features(
  features: Callable[[Any, Batch], Array], mesh: Mesh
) -> Callable[[Any, Batches], tuple[np.ndarray, np.ndarray]]:
  """Compiles how each example of a data set becomes one vector.

  Args:
    features: from variables and a batch to [B, N, D], which is averaged over N, or
      to [B, D].
    mesh: the devices.

  Returns:
    A function of variables and data, see `evaluation_batches`, whose batches hold
    `label`, int [B]. It returns float32 [E, D] and the labels, int [E], of the E
    examples in order.
  """
  everywhere = NamedSharding(mesh, P())

  @functools.partial(jax.jit, out_shardings=everywhere)
  def pool(variables: Any, batch: Batch) -> tuple[Array, Array, Array]:
    x = features(variables, batch).astype(jnp.float32)
    x = x.mean(axis=1) if x.ndim == 3 else x
    return x, batch["label"], batch["valid"]

  def read(variables: Any, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    xs, labels = [], []
    with jax.set_mesh(mesh):
      for batch in evaluation_batches(batches, mesh):
        x, label, valid = (np.asarray(a) for a in pool(variables, batch))
        xs.append(x[valid])
        labels.append(label[valid])
    return np.concatenate(xs), np.concatenate(labels)

  return read
