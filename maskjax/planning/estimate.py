"""From a compiled step to what a run of it will take."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from maskjax.planning.chips import Slice, parse_topology
from maskjax.planning.compiler import Compiled, compile_step
from maskjax.planning.costs import Costs, read_costs, repaired_seconds
from maskjax.planning.hlo import Program
from maskjax.planning.memory import Memory, activation_bytes

# A good sharding moves the parameters a few times a step. Once a batch's sharding was
# lost, a step moved 130 times the bytes of the parameters.
MOST_COLLECTIVES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
  """How long a step takes, by the compiler's word; no TPU has confirmed it.

  Attributes:
    roofline_seconds: the compiler's own, operation by operation; of a program with
      loops, whose turns it does not count, matrix products at the peak or memory at
      its bandwidth, whichever is longer.
    cycles_seconds: the compiler's cycles, added up over operations and loops.
    collective_seconds: collectives at the links' bandwidth, if nothing hides them.
    share_of_peak: of the chip, that the model's own products are in
      `cycles_seconds`.
  """

  roofline_seconds: float
  cycles_seconds: float
  collective_seconds: float
  share_of_peak: float

  @property
  def step_seconds(self) -> float:
    """Cycles, then collectives that nothing hides."""
    return self.cycles_seconds + self.collective_seconds

  @property
  def lowest_seconds(self) -> float:
    """The shorter of roofline and cycles, collectives hidden behind it."""
    shorter = min(self.roofline_seconds, self.cycles_seconds)
    return max(shorter, self.collective_seconds)

  @property
  def highest_seconds(self) -> float:
    """The longer of roofline and cycles, then collectives that nothing hides."""
    longer = max(self.roofline_seconds, self.cycles_seconds)
    return longer + self.collective_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What is known of a run before it begins.

  Attributes:
    config: the config.
    where: the chips.
    mesh: chips along each axis of the mesh.
    memory: of a chip.
    fits: whether the step compiles into a chip's memory.
    flops: of the matrix products of a step on one chip.
    model_flops: those that remain when nothing is computed twice.
    costs: of the compiled step; None where it does not fit.
    times: None where none can be stood behind.
    refusal: why there are no times.
    warnings: what a reader should know.
    ways_out: changes to the config that make the step smaller.
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
  """Compiles the training step of a config for a TPU topology, and judges it.

  Neither a TPU nor the data set is needed; libtpu is.

  Args:
    config: the config.
    topology: for example `v5p:4x4x4`.

  Raises:
    UserError: no such topology, a batch or mesh that does not fit it, or
      `maskjax[plan]` is not installed.
  """
  where = parse_topology(topology)
  return judge(config, where, compile_step(config, where))


def judge(config: ConfigDict, where: Slice, compiled: Compiled) -> Plan:
  """Makes a plan of what the compiler said."""
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
  """Why there can be no times; empty where there can."""
  if costs.inexact_loops:
    return (
      f"the turns of {len(costs.inexact_loops)} loops cannot be told, the first of "
      f"them {costs.inexact_loops[0]}"
    )
  if not costs.cycles:
    return "the compiler estimates no cycles"
  kernels = sum(n for name, n in costs.unpriced.items() if "tpu_custom_call" in name)
  if kernels:
    return f"the compiler estimates no cycles of {kernels} custom kernels"
  return ""


def _warnings(
  config: ConfigDict, where: Slice, compiled: Compiled, costs: Costs
) -> list[str]:
  warnings = []
  moved = sum(costs.collective_bytes.values()) / (2 * compiled.parameter_count)
  # Microbatches gather the parameters again; `tensor` moves activations by design.
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
  """Changes that shrink the largest part first."""
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
  """A plan as one object of JSON; sizes in bytes, times in seconds, of one chip.

  Returns:
    Among its keys `fits`, `share_of_peak` and `step_seconds`; the times are None
    where `refusal` says why.
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
