"""Checkpoints on disk; the only file that knows Orbax.

A checkpoint holds `params` (and `ema`, where the run keeps an average) apart from
the rest of the state, so that weights can be read without the optimizer's memory,
and imported weights are a checkpoint too.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from maskjax.errors import RunError, UserError
from maskjax.training.step import TrainState

WEIGHTS = ("params", "ema")
ITEMS = (*WEIGHTS, "training")


class Checkpoints:
  """The checkpoints of one run.

  Args:
    folder: where they lie; made at the first save.
    keep: how many of the newest stay.
    best: name of a metric, the smaller the better, whose best checkpoint stays
      too.
  """

  def __init__(self, folder: str | Path, *, keep: int = 2, best: str = "eval/loss"):
    self.folder = Path(folder).absolute()

    def score(metrics: dict[str, float]) -> float:
      value = metrics.get(best, math.nan)
      return -math.inf if math.isnan(value) else -value

    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    # Without `best_fn` the metrics would not outlive the process.
    self._options = ocp.CheckpointManagerOptions(
      best_fn=score, preservation_policy=policy, cleanup_tmp_directories=True
    )
    self._opened: ocp.CheckpointManager | None = None
    self._begun: int | None = None

  @property
  def _manager(self) -> ocp.CheckpointManager:
    if self._opened is None:
      try:
        # Without handlers it could not tell the shapes of what others wrote.
        self._opened = ocp.CheckpointManager(
          self.folder,
          options=self._options,
          item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
        )
      except Exception as error:
        raise RunError(f"cannot use {self.folder} for checkpoints: {error}") from error
    return self._opened

  def steps(self) -> list[int]:
    """The steps whose checkpoints are complete on disk, ascending."""
    if not self.folder.is_dir():
      return []
    return sorted(self._manager.all_steps(read=True))

  def save(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
    """Begins to write a checkpoint; goes on in the background.

    Raises:
      RunError: this or the checkpoint before it could not be written.
    """
    items = {"params": ocp.args.StandardSave(state.params)}
    if state.ema is not None:
      items["ema"] = ocp.args.StandardSave(state.ema)
    items["training"] = ocp.args.StandardSave(_training(state))
    self._begin(step, items, metrics)

  def save_weights(self, step: int, params: Any) -> None:
    """Writes a checkpoint of parameters alone, and waits for it."""
    self._begin(step, {"params": ocp.args.StandardSave(params)}, {})
    self.wait()

  def check_whole(self, step: int) -> None:
    """Raises a `UserError` where a checkpoint holds weights alone."""
    if not (self.folder / str(step) / "training").exists():
      raise UserError(
        f"{self.folder / str(step)} holds weights alone: expected a run's state; "
        "to start from weights, give their workdir as --config.init_from"
      )

  def restore(self, step: int, like: TrainState) -> TrainState:
    """Reads a whole state.

    Args:
      step: one of `steps()`.
      like: shapes and shardings to read it into.

    Raises:
      UserError: the checkpoint does not hold a state of these shapes.
    """
    self.check_whole(step)
    items = {
      "params": ocp.args.StandardRestore(like.params),
      "training": ocp.args.StandardRestore(_training(like)),
    }
    if like.ema is not None:
      items["ema"] = ocp.args.StandardRestore(like.ema)
    read = self._read(step, items)
    return TrainState(params=read["params"], ema=read.get("ema"), **read["training"])

  def restore_weights(self, step: int | None = None) -> tuple[int, Any]:
    """Reads the parameters that one would use: the average where there is one.

    Args:
      step: one of `steps()`; the newest when None.

    Returns:
      The step, and the parameters as NumPy arrays.

    Raises:
      UserError: there is no such checkpoint.
    """
    steps = self.steps()
    if not steps or (step is not None and step not in steps):
      wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
      raise UserError(f"{self.folder}: expected {wanted}, there are: {steps or 'none'}")
    step = steps[-1] if step is None else step
    item = next(
      name for name in reversed(WEIGHTS) if (self.folder / str(step) / name).exists()
    )
    shapes = self._manager.item_metadata(step)[item]
    local = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
      lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=local),
      dict(shapes),
    )
    read = self._read(step, {item: ocp.args.StandardRestore(like)})
    return step, jax.tree.map(np.asarray, read[item])

  def wait(self) -> None:
    """Waits until all checkpoints are on disk.

    Raises:
      RunError: one could not be written.
    """
    self._writing(self._manager.wait_until_finished)

  def close(self) -> None:
    """Waits, and lets go of the folder."""
    if self._opened is not None:
      self.wait()
      self._opened.close()
      self._opened = None

  def _read(self, step: int, items: dict[str, Any]) -> Any:
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
      raise UserError(
        f"{self.folder / str(step)} does not fit this config: {_brief(error)}"
      ) from error

  def _begin(self, step: int, items: dict[str, Any], metrics: dict[str, float]) -> None:
    self.wait()  # so that an error is known to be of the checkpoint begun last
    self._begun = step
    args = ocp.args.Composite(**items)
    self._writing(
      lambda: self._manager.save(step, args=args, metrics=metrics, force=True)
    )

  def _writing(self, write: Callable[[], Any]) -> None:
    try:
      write()
    except Exception as error:
      raise RunError(
        f"the checkpoint of step {self._begun} could not be written to "
        f"{self.folder}: {_brief(error)}; the checkpoints before it are kept"
      ) from error


def _training(state: TrainState) -> dict[str, Any]:
  return {"step": state.step, "extra": state.extra, "opt_state": state.opt_state}


def _brief(error: Exception) -> str:
  return " ".join(str(error).split())[:300]
