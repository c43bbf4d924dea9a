"""Features of whole data sets, for the probes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maskjax import sharding

Batch = Mapping[str, Array]


def evaluation_batches(
  batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]], mesh: Mesh
) -> Iterator[dict[str, Array]]:
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
  features: Callable[[Batch], Array],
  batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
  mesh: Mesh,
) -> tuple[np.ndarray, np.ndarray]:
  """Computes one vector for each example, with its label.

  Args:
    features: from a batch to [B, N, D], which is averaged over N, or [B, D].
    batches: see `evaluation_batches`; batches hold `label`, int [B].
    mesh: the devices.

  Returns:
    float32 [E, D] and int [E], for the E examples in order.
  """

  def pool(batch: Batch) -> tuple[Array, Array, Array]:
    x = features(batch).astype(jnp.float32)
    x = x.mean(axis=1) if x.ndim == 3 else x
    return x, batch["label"], batch["valid"]

  everywhere = NamedSharding(mesh, P())
  compute = jax.jit(pool, out_shardings=everywhere)
  xs, labels = [], []
  with jax.set_mesh(mesh):
    for batch in evaluation_batches(batches, mesh):
      x, label, valid = (np.asarray(a) for a in compute(batch))
      xs.append(x[valid])
      labels.append(label[valid])
  return np.concatenate(xs), np.concatenate(labels)
