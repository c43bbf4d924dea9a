"""Memory and time of a training step on TPUs, from their compiler, without a TPU."""

from maskjax.planning.chips import CHIPS, Slice, parse_topology
from maskjax.planning.estimate import Plan, as_json, plan
from maskjax.planning.report import report

__all__ = ["CHIPS", "Plan", "Slice", "as_json", "parse_topology", "plan", "report"]
