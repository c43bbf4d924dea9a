"""Formats a plan as text."""

from collections.abc import Iterator

from maskjax.planning.chips import GIB
from maskjax.planning.estimate import Plan


def _bytes(size: float) -> str:
  """Formats bytes as GiB or MiB."""
  unit, name = (GIB, "GiB") if size >= GIB / 100 else (2**20, "MiB")
  return f"{size / unit:8.2f} {name}"


def report(plan: Plan) -> str:
  """Formats a plan as a few short tables.

  Args:
    plan: the plan.
  """
  return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
  config, chips = plan.config, plan.where.num_chips
  mesh = " ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
  yield f"{plan.where}: {chips} chips as {mesh}"
  yield f"batch {config.batch_size}, {config.batch_size / chips:g} a chip"
  yield ""
  yield from _memory(plan)
  yield ""
  yield from _work(plan)
  if plan.times:
    yield ""
    yield from _times(plan)
  elif plan.fits:
    yield f"no time: {plan.refusal}"
  for warning in plan.warnings:
    yield f"warning: {warning}"


def _memory(plan: Plan) -> Iterator[str]:
  memory = plan.memory
  verdict = "fits" if plan.fits else "DOES NOT FIT"
  yield (
    f"{verdict}: {memory.total / GIB:.2f} of {memory.available / GIB:.2f} GiB a chip"
  )
  for part, size in memory.parts.items():
    yield f"  {part:<27}{_bytes(size)}"
  if not plan.fits:
    yield f"the largest part: {memory.largest}; ways out:"
    for way in plan.ways_out:
      yield f"  {way}"


def _work(plan: Plan) -> Iterator[str]:
  yield "a step, on each chip"
  yield f"  {'matrix products':<27}{plan.flops / 1e12:8.3f} TFLOP"
  yield f"  {'those of the model itself':<27}{plan.model_flops / 1e12:8.3f} TFLOP"
  if plan.costs:
    yield f"  {'HBM read and written':<27}{_bytes(plan.costs.hbm_bytes)}"
    for kind, size in plan.costs.collective_bytes.items():
      yield f"  {kind:<27}{_bytes(size)}"


def _times(plan: Plan) -> Iterator[str]:
  times, costs, config = plan.times, plan.costs, plan.config
  assert times is not None and costs is not None
  low, high = times.lowest_seconds, times.highest_seconds
  step = times.step_seconds
  yield (
    f"estimated step {1e3 * low:.1f} to {1e3 * high:.1f} ms; no hardware calibration"
  )
  yield f"  {'roofline':<27}{1e3 * times.roofline_seconds:8.2f} ms"
  yield (
    f"  {'cycles':<27}{1e3 * times.cycles_seconds:8.2f} ms, "
    f"{100 * times.share_of_peak:.1f} % of the peak"
  )
  yield (f"  {'collectives, if exposed':<27}{1e3 * times.collective_seconds:8.2f} ms")
  kinds = ", ".join(f"{name} {count}" for name, count in costs.unpriced.items())
  yield (
    f"  {'operations without price':<27}{sum(costs.unpriced.values()):8d}"
    + (f" ({kinds})" if kinds else "")
  )
  yield (
    f"at {1e3 * step:.1f} ms, cycles and collectives: "
    f"{config.batch_size / step:.0f} examples a second, "
    f"{config.num_steps * step / 3600:.1f} hours for {config.num_steps} steps"
  )
