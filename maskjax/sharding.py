"""The device mesh, and how arrays are sharded over it.

The mesh has three axes. Batches are split over `data` and `fsdp` together;
parameters and optimizer state over `fsdp` and, inside wide layers, `tensor`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maskjax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

Rules = Sequence[tuple[str, Sequence[str | None]]]

# A rule is a regular expression and mesh axes. The first rule that is found in the path
# of an array applies; its axes are of the array's LAST dimensions, since layers stacked
# by a scan have one more dimension in front.
NAMED_RULES: Rules = (
  # Of two dense layers in a row, the first is split along its outputs and the second
  # along its inputs, so that `tensor` needs no communication between them.
  (r"(query|key|value|up|gate)/kernel$", ("fsdp", "tensor")),
  (r"(query|key|value|up|gate)/bias$", ("tensor",)),
  (r"(out|down)/kernel$", ("tensor", "fsdp")),
  # Heads [D, V] that predict one of V tokens, codes or classes, or V values.
  (r"(^|[/_])(head|prototypes)(_\d+)?(/kernel)?$", ("fsdp", "tensor")),
  (r"(^|[/_])(head|coarse|fine)(_\d+)?/bias$", ("tensor",)),
  # Tables [V, D] with a row for each token, n-gram or centroid.
  (r"(^|/)(tokens|ngrams|centroids)$", ("tensor", "fsdp")),
  # Tables [N, D] with a row for each position or relative position.
  (r"(^|[/_])(positions|relative)$", (None, "fsdp")),
  # Single dense layers [C, D] and convolutions [..., C, D].
  (
    r"(^|[/_])(embed|dense|hidden|middle|pool|project|conv(_\d+)?|double|reduce|shortcut)"
    r"(_\d+)?/kernel$",
    ("fsdp", None),
  ),
)
# For arrays that no rule names: kernels of other networks, and small arrays.
FALLBACK_RULES: Rules = ((r"kernel$", ("fsdp", None)), (r"", ()))

TRANSFORMER_RULES: Rules = (*NAMED_RULES, *FALLBACK_RULES)


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Arranges devices as a mesh of axes `data`, `fsdp` and `tensor`.

  Args:
    data: devices among which the batch is split and the parameters are replicated;
      -1 takes all that the other axes leave.
    fsdp: devices among which both the batch and the parameters are split.
    tensor: devices among which the wide layers are split.
    devices: the devices to use; all of them when None.

  Raises:
    UserError: the axes do not multiply to the number of devices.

  Example:
    >>> make_mesh(devices=jax.devices()[:1]).axis_names
    ('data', 'fsdp', 'tensor')
  """
  devices = jax.devices() if devices is None else devices
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  known = math.prod(size for size in sizes.values() if size != -1)
  if known > 0 and list(sizes.values()).count(-1) == 1:
    free = next(axis for axis, size in sizes.items() if size == -1)
    sizes[free] = len(devices) // known
  if min(sizes.values()) < 1 or math.prod(sizes.values()) != len(devices):
    given = ", ".join(f"mesh.{k}={v}" for k, v in sizes.items())
    raise UserError(
      f"{given}: expected sizes that multiply to the {len(devices)} devices "
      "(one of them may be -1)"
    )
  # Auto, because Linen's Embed and Dropout fail under make_mesh's default, Explicit.
  return jax.make_mesh(
    tuple(sizes.values()), AXES, (AxisType.Auto,) * 3, devices=devices
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding of every array of a batch: its first axis over the mesh."""
  return NamedSharding(mesh, BATCH)


def check_batch(mesh: Mesh, batch_size: int, microbatches: int) -> None:
  """Checks that a microbatch can be split evenly over the mesh.

  Args:
    mesh: the mesh.
    batch_size: examples of a batch.
    microbatches: parts into which a batch is split.

  Raises:
    UserError: a microbatch is not a multiple of the devices along `data` and `fsdp`.
  """
  parts = mesh.shape["data"] * mesh.shape["fsdp"]
  if microbatches < 1 or batch_size % (parts * microbatches):
    raise UserError(
      f"batch_size={batch_size}: expected a multiple of {parts * microbatches} "
      f"(mesh.data={mesh.shape['data']} x mesh.fsdp={mesh.shape['fsdp']} "
      f"x microbatches={microbatches})"
    )


def global_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Makes global arrays from the rows that each process holds.

  Args:
    mesh: the mesh.
    batch: this process's rows of the batch, [B / processes, ...] each.

  Returns:
    The batch as global arrays [B, ...], split over `data` and `fsdp`.
  """
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
    for name, rows in batch.items()
  }


def shardings(tree: Any, mesh: Mesh, rules: Rules = TRANSFORMER_RULES) -> Any:
  """The sharding of each array of a state, by the rules.

  Args:
    tree: arrays or their shapes. The path of an array in the optimizer's state ends
      with the path of its parameter, so the same rule applies to both.
    mesh: the mesh.
    rules: pairs of a regular expression and mesh axes, see `rule_of`. An array is not
      split along a dimension that the mesh axis does not divide.

  Returns:
    The same tree with a `NamedSharding` for each leaf.
  """

  def one(path: tuple, leaf: Any) -> NamedSharding:
    _, axes = rule_of(path_name(path), rules)
    lead = len(leaf.shape) - len(axes)
    if lead < 0:
      return NamedSharding(mesh, P())
    fitting = [
      axis if axis and size % mesh.shape[axis] == 0 else None
      for axis, size in zip(axes, leaf.shape[lead:], strict=True)
    ]
    return NamedSharding(mesh, P(*[None] * lead, *fitting))

  return jax.tree.map_with_path(one, tree)


def rule_of(
  name: str, rules: Rules = TRANSFORMER_RULES
) -> tuple[str, Sequence[str | None]]:
  """The rule that applies to an array.

  Args:
    name: the array's path, see `path_name`.
    rules: pairs of a regular expression and mesh axes.

  Returns:
    The first rule whose expression is found in the path; without one, a rule that
    replicates the array.

  Example:
    >>> rule_of("encoder/transformer/block_0/mlp/gate/kernel")[1]
    ('fsdp', 'tensor')
  """
  return next((rule for rule in rules if re.search(rule[0], name)), ("", ()))


def path_name(path: tuple) -> str:
  """Formats a tree path as names joined by slashes.

  Args:
    path: of keys, as `jax.tree.map_with_path` passes them.

  Example:
    >>> jax.tree.leaves(jax.tree.map_with_path(
    ...     lambda path, _: path_name(path), {"norm": {"scale": 1}}))
    ['norm/scale']
  """
  return jax.tree_util.keystr(path, simple=True, separator="/")


def constrain_batch(x: jax.Array) -> jax.Array:
  """Constrains the first axis of an activation to the sharding of the batch.

  Without it the compiler loses the batch's sharding in a scan over layers. Without a
  mesh in context (`jax.set_mesh`) it does nothing.

  Args:
    x: [B, ...].

  Returns:
    The same array.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or "data" not in mesh.axis_names:
    return x
  return jax.lax.with_sharding_constraint(x, BATCH)


def for_tpu() -> bool:
  """Whether the function that is being traced will run on TPUs.

  It depends on the mesh in context, which may be of chips that are only compiled for;
  without one, on JAX's default backend.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return (jax.default_backend() if device is None else device.platform) == "tpu"
