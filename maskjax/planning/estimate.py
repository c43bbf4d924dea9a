"""From a compiled step to the memory and time of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from maskjax.planning.chips import Slice, parse_topology
from maskjax.planning.compiler import Compiled, compile_step
from maskjax.planning.costs import Costs, read_costs, repaired_seconds
from maskjax.planning.hlo import Program
from maskjax.planning.memory import Memory, activation_bytes

# A good sharding moves the parameters a few times per step. A step that lost the
# sharding of its batch moved 130 times the bytes of the parameters.
MOST_COLLECTIVES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
  """Estimates of the time of a step; not measured on a TPU.

  Attributes:
    roofline_seconds: the compiler's roofline, operation by operation. It counts a loop
      as one iteration, so for a program with loops this is the longer of matrix
      products at the peak and HBM at its bandwidth.
    cycles_seconds: the compiler's cycles, added up over operations and loops.
    collective_seconds: collectives at the links' bandwidth, if nothing overlaps them.
    share_of_peak: the model's matrix products per `cycles_seconds`, as a share of the
      chip's peak.
  """

  roofline_seconds: float
  cycles_seconds: float
  collective_seconds: float
  share_of_peak: float

  @property
  def step_seconds(self) -> float:
    """Cycles, followed by the collectives."""
    return self.cycles_seconds + self.collective_seconds

  @property
  def lowest_seconds(self) -> float:
    """The shorter of roofline and cycles, overlapped by the collectives."""
    shorter = min(self.roofline_seconds, self.cycles_seconds)
    return max(shorter, self.collective_seconds)

  @property
  def highest_seconds(self) -> float:
    """The longer of roofline and cycles, followed by the collectives."""
    longer = max(self.roofline_seconds, self.cycles_seconds)
    return longer + self.collective_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """Memory and time of a config's training step on a slice.

  Attributes:
    config: the config.
    where: the slice.
    mesh: chips along each axis of the mesh.
    memory: of one chip.
    fits: whether the step fits into a chip's memory.
    flops: of the matrix products of a step on one chip.
    model_flops: the same without what is computed twice (`remat`).
    costs: of the compiled step; None if it does not fit.
    times: None if they cannot be estimated.
    refusal: why there are no times; empty if there are.
    warnings: doubts about the sharding or the estimates, a line each.
    ways_out: changes to the config that reduce its memory.
  """

  config: ConfigDict
  where: Slice
  mesh: Mapping[str, int]
  memory: Memory
  fits: bool
  flops: float
  model_flops: float
  costs: Costs | None
  times: Times | None
  refusal: str
  warnings: Sequence[str]
  ways_out: Sequence[str]


def plan(config: ConfigDict, topology: str) -> Plan:
  """Compiles the training step of a config for a TPU topology, and estimates its cost.

  Needs libtpu, but neither a TPU nor the data set.

  Args:
    config: the config.
    topology: for example `v5p:4x4x4`.

  Raises:
    UserError: no such topology, a batch or mesh that does not fit it, or
      `maskjax[plan]` is not installed.
  """
  where = parse_topology(topology)
  return estimate(config, where, compile_step(config, where))


def estimate(config: ConfigDict, where: Slice, compiled: Compiled) -> Plan:
  """Makes a plan from a compiled step.

  Args:
    config: the config.
    where: the slice.
    compiled: the config's step on the slice.
  """
  costs = times = None
  refusal, activations = "the step does not fit", None
  warnings: list[str] = []
  if compiled.text:
    program = Program.parse(compiled.text)
    costs = read_costs(program, where.num_chips)
    activations = activation_bytes(program)
    refusal = _refusal(costs)
    warnings = _warnings(config, where, compiled, costs)
    if not refusal:
      times = _times(where, compiled, costs)
  memory = _memory(where, compiled, activations)
  return Plan(
    config=config,
    where=where,
    mesh=compiled.mesh,
    memory=memory,
    fits=bool(compiled.text),
    flops=compiled.flops,
    model_flops=compiled.model_flops,
    costs=costs,
    times=times,
    refusal=refusal,
    warnings=warnings,
    ways_out=[] if compiled.text else _ways_out(config, memory),
  )


def _memory(where: Slice, compiled: Compiled, activations: int | None) -> Memory:
  held = dict(compiled.held_bytes)
  working = max(0, compiled.total_bytes - sum(held.values()))
  if activations is not None:
    activations = min(activations, working)
  return Memory(
    **held,
    activations=activations,
    temporaries=working - (activations or 0),
    available=compiled.available_bytes or where.chip.hbm_bytes,
  )


def _times(where: Slice, compiled: Compiled, costs: Costs) -> Times:
  chip = where.chip
  cycles_seconds = costs.cycles / chip.clock
  if costs.has_loops:
    products = compiled.flops / chip.peak_flops
    roofline_seconds = max(products, costs.hbm_bytes / chip.hbm_bandwidth)
  else:
    roofline_seconds = repaired_seconds(compiled.optimal_seconds, compiled.text)
  return Times(
    roofline_seconds=roofline_seconds,
    cycles_seconds=cycles_seconds,
    collective_seconds=costs.link_bytes / chip.link_bandwidth,
    share_of_peak=compiled.model_flops / chip.peak_flops / cycles_seconds,
  )


def _refusal(costs: Costs) -> str:
  """Why times cannot be estimated; empty if they can."""
  if costs.inexact_loops:
    return (
      f"the turns of {len(costs.inexact_loops)} loops are unknown, the first of "
      f"them {costs.inexact_loops[0]}"
    )
  if not costs.cycles:
    return "the compiler estimates no cycles"
  kernels = sum(n for name, n in costs.unpriced.items() if "tpu_custom_call" in name)
  if kernels:
    return f"the compiler estimates no cycles for {kernels} custom kernels"
  return ""


def _warnings(
  config: ConfigDict, where: Slice, compiled: Compiled, costs: Costs
) -> list[str]:
  warnings = []
  moved = sum(costs.collective_bytes.values()) / (2 * compiled.parameter_count)
  # Each microbatch gathers the parameters again; `tensor` moves activations.
  if compiled.mesh["tensor"] == 1 and moved > MOST_COLLECTIVES * config.microbatches:
    warnings.append(
      f"collectives move {moved:.0f} times the parameters' bytes in bfloat16: a "
      "sharding was lost"
    )
  if where.chip.clock_is_assumed:
    warnings.append(
      f"the clock of {where.kind}, {where.chip.clock / 1e9:g} GHz, is assumed"
    )
  return warnings


def _ways_out(config: ConfigDict, memory: Memory) -> list[str]:
  """Changes that reduce memory, of its largest part first."""
  state = []
  if config.mesh.fsdp == 1:
    state.append(
      "share parameters and optimizer among the chips: "
      "--config.mesh.data=1 --config.mesh.fsdp=-1"
    )
  if config.optimizer.get("state_dtype", "float32") == "float32":
    state.append("halve the optimizer's state: config.optimizer.state_dtype='bfloat16'")
  objective, activations = config.objective, []
  if objective.get("remat", "none") != "full":
    activations.append(
      "compute activations again in the backward pass: config.objective.remat='dots', "
      "or 'full'"
    )
    if not objective.get("scan", False):
      activations.append("loop over the layers, with remat: config.objective.scan=True")
  activations.append(
    f"split the batch: --config.microbatches={2 * config.microbatches}"
  )
  activations.append("use more chips, or a smaller batch")
  first = memory.largest in ("parameters", "optimizer")
  return [*state, *activations] if first else [*activations, *state]


def as_json(plan: Plan) -> dict[str, Any]:
  """Converts a plan to one JSON object.

  Args:
    plan: the plan.

  Returns:
    Sizes in bytes and times in seconds, of one chip, among them `fits`,
    `share_of_peak` and `step_seconds`. The times are None if there is a `refusal`.
  """
  times, costs, config = plan.times, plan.costs, plan.config
  seconds = times.step_seconds if times else None
  return {
    "topology": str(plan.where),
    "chips": plan.where.num_chips,
    "mesh": dict(plan.mesh),
    "batch_size": config.batch_size,
    "fits": plan.fits,
    "memory": {**plan.memory.parts, "total": plan.memory.total},
    "hbm": plan.memory.available,
    "flops": plan.flops,
    "model_flops": plan.model_flops,
    "hbm_bytes": costs.hbm_bytes if costs else None,
    "collective_bytes": dict(costs.collective_bytes) if costs else None,
    "share_of_peak": times.share_of_peak if times else None,
    "step_seconds": seconds,
    "step_seconds_lowest": times.lowest_seconds if times else None,
    "step_seconds_highest": times.highest_seconds if times else None,
    "roofline_seconds": times.roofline_seconds if times else None,
    "cycles_seconds": times.cycles_seconds if times else None,
    "collective_seconds": times.collective_seconds if times else None,
    "unpriced": dict(costs.unpriced) if costs else None,
    "examples_per_second": config.batch_size / seconds if seconds else None,
    "hours": config.num_steps * seconds / 3600 if seconds else None,
    "calibrated_on_hardware": False,
    "refusal": plan.refusal or None,
    "warnings": list(plan.warnings),
    "ways_out": list(plan.ways_out),
  }
