"""Compiles the training step of a config for chips that this machine does not have."""

import dataclasses
import importlib.util
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from maskjax import data, experiment, libtpu, resolve, sharding
from maskjax.errors import UserError
from maskjax.objectives import Step, Variables, abilities_of
from maskjax.planning.chips import Slice
from maskjax.planning.flops import count_matmuls, training_flops
from maskjax.planning.memory import shard_bytes
from maskjax.training import TrainState, program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
  """A compiled step.

  Attributes:
    mesh: chips along each axis of the mesh.
    held_bytes: bytes on one chip that live from step to step, by part.
    parameter_count: of the whole model.
    flops: of the matrix products of a step on one chip.
    model_flops: the same without what is computed twice (`remat`).
    text: the compiled program; empty if it does not fit.
    optimal_seconds: the compiler's own roofline.
    argument_bytes: of the step's arguments on one chip, in the chip's layouts.
    total_bytes: the most that is allocated at one time on one chip.
    available_bytes: that the compiler can use; None if the step fits.
  """

  mesh: Mapping[str, int]
  held_bytes: Mapping[str, int]
  parameter_count: int
  flops: float
  model_flops: float
  text: str = ""
  optimal_seconds: float = 0.0
  argument_bytes: int = 0
  total_bytes: int = 0
  available_bytes: int | None = None


def topology_devices(where: Slice) -> list[jax.Device]:
  """Makes the devices of a slice, which can be compiled for but not run on.

  Args:
    where: the slice.

  Raises:
    UserError: libtpu is not installed.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(
      "planning needs libtpu, which compiles for TPUs: expected "
      "`pip install 'maskjax[plan]'` (Linux on x86-64)"
    )
  libtpu.settle()
  options: dict[str, Any] = {}
  if where.num_chips == 1:
    options["chips_per_host_bounds"] = [1, 1, 1]
  if where.kind == "v4":
    options["chip_config_name"] = "megacore"  # its two cores as one device
  shape = where.shape if where.num_chips > 1 else (1, 1, 1)
  name = f"{where.kind}:{'x'.join(map(str, shape))}"
  return list(topologies.get_topology_desc(name, "tpu", **options).devices)


def compile_step(config: ConfigDict, where: Slice) -> Compiled:
  """Compiles the step that `maskjax train` would run on a slice.

  Args:
    config: the config.
    where: the slice.

  Raises:
    UserError: see `maskjax.experiment.build_system`; libtpu is not installed, or
      rejects the program for another reason than its size.
  """
  devices = topology_devices(where)
  objective, optimizer, mesh = experiment.build_system(config, devices)
  shapes = batch_shapes(config, objective)
  key = jax.random.key(config.seed)
  split = sharding.batch_sharding(mesh)
  batch: Any = {
    name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=split)
    for name, s in shapes.items()
  }
  with jax.set_mesh(mesh):
    ready = program(
      objective,
      optimizer,
      batch,
      key,
      num_steps=config.num_steps,
      mesh=mesh,
      microbatches=config.microbatches,
      batch_warmup=tuple(config.batch_warmup),
      ema_decay=config.ema_decay,
    )
    traced = ready.step.trace(ready.state, batch)
    found = Compiled(
      mesh=dict(mesh.shape),
      held_bytes=_held_bytes(ready.state, batch),
      parameter_count=sum(leaf.size for leaf in jax.tree.leaves(ready.state.params)),
      flops=count_matmuls(traced.jaxpr.jaxpr) / where.num_chips,
      model_flops=_model_flops(objective, ready.state, shapes, Step(key))
      / where.num_chips,
    )
    try:
      compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
      needed, available = _needed(str(error), sum(found.held_bytes.values()))
      return dataclasses.replace(found, total_bytes=needed, available_bytes=available)
  memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
  return dataclasses.replace(
    found,
    text=compiled.as_text(),
    optimal_seconds=costs["optimal_seconds"],
    argument_bytes=memory.argument_size_in_bytes,
    total_bytes=memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes,
  )


def batch_shapes(config: ConfigDict, objective: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a training batch, from the objective or else from the data.

  Args:
    config: the config; its data is read if the objective has no `batch_shapes`.
    objective: the config's objective.

  Returns:
    By name, shapes [B, ...] for the config's batch size.
  """
  known = abilities_of(objective).batch_shapes
  if known is not None:
    return dict(known(config.batch_size))
  one = data.Pipeline(
    source=resolve.build(data.sources, config.data.train),
    transforms=[data.bind_transform(t) for t in config.data.train_transforms],
    batch_size=1,
    num_threads=0,
  )
  with one(0) as batches:
    return {
      name: jax.ShapeDtypeStruct((config.batch_size, *rows.shape[1:]), rows.dtype)
      for name, rows in next(batches).items()
    }


def _held_bytes(state: TrainState, batch: Any) -> dict[str, int]:
  return {
    "parameters": shard_bytes(state.params),
    "optimizer": shard_bytes(state.opt_state),
    "other": shard_bytes((state.extra, state.ema, state.step, batch)),
  }


def _model_flops(objective: Any, state: TrainState, batch: Any, step: Step) -> int:
  def loss(params: Any, extra: Any, batch: Any) -> jax.Array:
    return objective.loss(Variables(params, extra), batch, step).sum

  return training_flops(loss, state.params, state.extra, batch)


# The compiler's error for a program that does not fit: the bytes that all of it needs,
# or that it needs beside its arguments; and those available.
_ALL_NEEDED = r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm"
_MORE_NEEDED = (
  r"HLO temporaries \(([\d.]+[KMGT])\) exceeds available HBM \(([\d.]+[KMGT])"
)


def _needed(message: str, held: int) -> tuple[int, int]:
  """The bytes that a program which does not fit needs, and those available."""
  if match := re.search(_ALL_NEEDED, message):
    return _bytes(match[1]), _bytes(match[2])
  if match := re.search(_MORE_NEEDED, message):
    return held + _bytes(match[1]), _bytes(match[2])
  raise UserError(f"the TPU compiler refuses this step: {message[:500]}")


def _bytes(text: str) -> int:
  """Parses a size such as 15.75G."""
  units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
  return int(float(text[:-1]) * units[text[-1]])
