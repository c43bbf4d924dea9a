"""Checkpoints, on disk or on object storage; the only module that imports Orbax.

A checkpoint holds `params`, `ema` (if the run keeps an average) and `extra` (if the
objective has any) apart from the rest of the state. So weights can be read without the
optimizer's state, and imported weights are a checkpoint too. A checkpoint also holds
the checksums of all its files, since Orbax reads most flipped bits without an error.
"""

import concurrent.futures
import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from maskjax import distributed, storage
from maskjax.errors import RunError, RunWarning, UserError
from maskjax.training import older_extra
from maskjax.training.step import TrainState

WEIGHTS = ("params", "ema")
ITEMS = (*WEIGHTS, "extra", "training")

CHECKSUMS = "checksums.json"
# Orbax writes these last; a checkpoint is finished once the second one exists.
COMMIT = ("_CHECKPOINT_METADATA", "commit_success.txt")
# The suffix of a checkpoint's name until it is finished.
UNFINISHED = ".orbax-checkpoint-tmp"


class Checkpoints:
  """The checkpoints of one run.

  Args:
    folder: of the checkpoints; is created by the first save.
    keep: how many of the newest are kept.
    best: name of a metric, smaller is better, whose best checkpoint is kept too.
  """

  def __init__(self, folder: str | Path, *, keep: int = 2, best: str = "eval/loss"):
    # A remote path is absolute already, and epath would make it a local one.
    remote = storage.is_remote(folder)
    self.folder = storage.path(folder if remote else Path(folder).absolute())

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
    # Without `best_fn` Orbax does not store the metrics.
    self._options = ocp.CheckpointManagerOptions(
      best_fn=score,
      preservation_policy=policy,
      atomicity_options=_atomicity(self.folder),
      # Orbax calls it in the first process once all files are written, before it
      # commits.
      async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
    )
    self._opened: ocp.CheckpointManager | None = None
    self._begun: int | None = None
    self._known_whole: set[int] = set()

  @property
  def _manager(self) -> ocp.CheckpointManager:
    if self._opened is None:
      try:
        # Without handlers it cannot read the shapes in checkpoints of other processes.
        self._opened = ocp.CheckpointManager(
          self.folder,
          options=self._options,
          item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
        )
      except Exception as error:
        raise RunError(f"cannot use {self.folder} for checkpoints: {error}") from error
    return self._opened

  def steps(self) -> list[int]:
    """The steps whose checkpoints are finished, ascending."""
    return sorted(
      int(name)
      for name in self._names()
      if name.isdigit()
      and all(storage.exists(self.folder / name / x) for x in (CHECKSUMS, COMMIT[1]))
    )

  def newest(self) -> int | None:
    """Finds the newest checkpoint that is whole, and moves newer ones aside.

    A checkpoint that is not finished, or whose files do not match their checksums, is
    named in a `RunWarning` and renamed to `damaged-STEP`. The first process decides
    for all processes.

    Returns:
      Its step; None if there is none.
    """
    step = distributed.from_first_process(lambda: self._newest_whole(set_aside=True))
    return None if step < 0 else step

  def save(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
    """Begins to write a checkpoint, which continues in the background.

    Args:
      step: number of steps done.
      state: is copied before this returns.
      metrics: by name; see `best`.

    Raises:
      RunError: this checkpoint or the one before it could not be written.
    """
    items = {k: ocp.args.StandardSave(v) for k, v in _items(state).items()}
    self._begin(step, items, metrics)

  def save_weights(self, step: int, params: Any) -> None:
    """Writes a checkpoint that holds parameters only, and waits for it.

    Args:
      step: number of steps done.
      params: the parameters.

    Raises:
      RunError: it could not be written.
    """
    self._begin(step, {"params": ocp.args.StandardSave(params)}, {})
    self.wait()

  def check_whole(self, step: int) -> None:
    """Raises a `UserError` if a checkpoint holds weights only."""
    if not (self.folder / str(step) / "training").exists():
      raise UserError(
        f"{self.folder / str(step)} holds weights only: expected a run's state; "
        "to start from weights, give their workdir as --config.init_from"
      )

  def restore(self, step: int, like: TrainState) -> TrainState:
    """Reads a whole state.

    Args:
      step: one of `steps()`.
      like: the shapes and shardings of the state.

    Raises:
      UserError: the checkpoint holds weights only, or a state of other shapes.
    """
    self.check_whole(step)
    items = {k: ocp.args.StandardRestore(v) for k, v in _items(like).items()}
    read = dict(self._read(step, items))
    rest = read.pop("training")
    return TrainState(**{"ema": None, "extra": like.extra, **read, **rest})

  def restore_weights(
    self, step: int | None = None, *, item: str | None = None
  ) -> tuple[int, Any]:
    """Reads the parameters to evaluate: their average if the run keeps one.

    Args:
      step: one of `steps()`; the newest when None.
      item: `params` or `ema`; the average where there is one when None.

    Returns:
      The step, and the parameters as NumPy arrays.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    steps = self.steps()
    if step is None:
      step = distributed.from_first_process(lambda: self._newest_whole(set_aside=False))
    elif step in steps and (damage := self._damage(step)):
      raise UserError(f"the checkpoint of step {step} in {self.folder}: {damage}")
    if step not in steps:
      wanted = "a checkpoint" if step < 0 else f"a checkpoint of step {step}"
      raise UserError(f"{self.folder}: expected {wanted}, there are: {steps or 'none'}")
    there = [name for name in WEIGHTS if (self.folder / str(step) / name).exists()]
    item = there[-1] if item is None else item
    if item not in there:
      raise UserError(
        f"{self.folder / str(step)} has no {item!r}: "
        f"expected one of: {', '.join(there)}"
      )
    shapes = dict(self._manager.item_metadata(step)[item])
    return step, self._read_item(step, item, shapes)

  def restore_extra(self, step: int, like: Any) -> Any:
    """Reads the objective's `extra`, as NumPy arrays.

    Args:
      step: one of `steps()`.
      like: arrays or their shapes; returned if there are none, or if the checkpoint
        holds weights only.

    Raises:
      UserError: the checkpoint does not hold arrays of these shapes.
    """
    kept = jax.tree.leaves(like) and (self.folder / str(step) / "extra").exists()
    return self._read_item(step, "extra", like) if kept else like

  def restore_extra_entries(self, step: int, names: Iterable[str]) -> dict[str, Any]:
    """Reads some entries of the objective's `extra`, as NumPy arrays.

    Args:
      step: one of `steps()`.
      names: of the entries.

    Returns:
      The entries by name, without those that the checkpoint does not have.
    """
    if not (self.folder / str(step) / "extra").exists():
      return {}
    read = self._read_item(
      step, "extra", dict(self._manager.item_metadata(step)["extra"])
    )
    return {name: read[name] for name in names if name in read}

  def wait(self) -> None:
    """Waits until all checkpoints are written.

    Raises:
      RunError: one could not be written.
    """
    self._writing(self._manager.wait_until_finished)

  def close(self) -> None:
    """Waits until all checkpoints are written, and closes the folder.

    Raises:
      RunError: one could not be written.
    """
    if self._opened is not None:
      self.wait()
      self._opened.close()
      self._opened = None

  def _names(self) -> list[str]:
    try:
      return [path.name for path in self.folder.iterdir()]
    except FileNotFoundError:
      return []

  def _newest_whole(self, *, set_aside: bool) -> int:
    """The newest step whose checkpoint is whole, or -1."""
    begun = {int(m[1]) for n in self._names() if (m := re.match(r"(\d+)(\.|$)", n))}
    for step in sorted(begun, reverse=True):
      damage = self._damage(step)
      if damage is None:
        return step
      kept = self._set_aside(step) if set_aside else ""
      warnings.warn(
        f"the checkpoint of step {step} in {self.folder}: {damage}; the one before it "
        f"is used{kept}",
        RunWarning,
        stacklevel=4,
      )
    return -1

  def _set_aside(self, step: int) -> str:
    """Renames or deletes a damaged checkpoint; returns the end of the warning."""
    unfinished, kept = self._unfinished(step), self.folder / f"damaged-{step}"
    if storage.is_remote(self.folder) and not storage.exists(
      self.folder / str(step) / COMMIT[1]
    ):
      unfinished = self.folder / str(step)
    if unfinished.exists():
      unfinished.rmtree()
    if not (self.folder / str(step)).exists():
      return ""
    if kept.exists():
      kept.rmtree()
    storage.move(self.folder / str(step), kept)
    if self._opened is not None:
      self._opened.reload()
    return f", it is kept as {kept.name}"

  def _unfinished(self, step: int | None) -> epath.Path:
    return self.folder / f"{step}{UNFINISHED}"

  def _damage(self, step: int) -> str | None:
    """Describes the damage to a checkpoint; None if it is whole."""
    if step in self._known_whole:
      return None
    if step not in self.steps():
      return "it was not finished"
    folder = self.folder / str(step)
    try:
      expected = json.loads((folder / CHECKSUMS).read_text())
      found = _checksums(folder)
    except storage.errors(ValueError) as error:
      return f"its checksums cannot be checked: {_brief(error)}"
    for name, checksum in expected.items():
      if name not in found:
        return f"{name} is missing"
      if found[name] != checksum:
        return f"{name} does not have its checksum"
    self._known_whole.add(step)
    return None

  def _seal(self) -> None:
    """Writes the checksums of the checkpoint that is being saved."""
    # An object store cannot rename, so there it has its final name from the start.
    names = (self._unfinished(self._begun), self.folder / str(self._begun))
    folder = next(name for name in names if name.exists())
    (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)))

  def _read_item(self, step: int, item: str, like: Any) -> Any:
    local = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
      lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=local), like
    )
    read = self._read(step, {item: ocp.args.StandardRestore(like)})
    return jax.tree.map(np.asarray, read[item])

  def _read(self, step: int, items: dict[str, Any]) -> Any:
    try:
      if "extra" not in items:
        return self._manager.restore(step, args=ocp.args.Composite(**items))
      like = items["extra"].item
      stored = self._manager.item_metadata(step)["extra"]
      older = ocp.args.StandardRestore(older_extra.as_stored(like, stored))
      args = ocp.args.Composite(**{**items, "extra": older})
      read = dict(self._manager.restore(step, args=args))
      return {**read, "extra": older_extra.as_today(like, read["extra"])}
    except Exception as error:
      raise UserError(
        f"{self.folder / str(step)} does not fit this config: {_brief(error)}"
      ) from error

  def _begin(self, step: int, items: dict[str, Any], metrics: dict[str, float]) -> None:
    self.wait()  # so that a later error can only be of the checkpoint begun here
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


def _checksums(folder: epath.Path) -> dict[str, str]:
  """Checksums of the files in a folder by path, without the files of the commit.

  They are SHA-256; on object storage they are those that the store itself keeps, so
  that a checkpoint need not be read again.
  """
  left_out = (*COMMIT, CHECKSUMS)
  if storage.is_remote(folder):
    kept = storage.checksums(folder)
    return {name: kept[name] for name in kept if name.split("/")[-1] not in left_out}
  files = [path for path in _files(folder) if path.name not in left_out]

  def checksum(path: epath.Path) -> str:
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()

  with concurrent.futures.ThreadPoolExecutor() as pool:
    sums = pool.map(checksum, files)
    return {str(p.relative_to(folder)): s for p, s in zip(files, sums, strict=True)}


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    else:
      yield path


def _atomicity(folder: epath.Path) -> ocp.options.AtomicityOptions | None:
  """How Orbax commits where it cannot rename; None where it can."""
  if not storage.is_remote(folder):
    return None
  if str(folder).startswith("s3://"):
    from maskjax.training import s3

    s3.extend_orbax()
  mode = ocp.options.AtomicityMode.COMMIT_FILE
  return ocp.options.AtomicityOptions(mode=mode)


def _items(state: TrainState) -> dict[str, Any]:
  """The items of a checkpoint; those without arrays are left out."""
  items = {"params": state.params, "ema": state.ema, "extra": state.extra}
  items["training"] = {"step": state.step, "opt_state": state.opt_state}
  return {name: item for name, item in items.items() if jax.tree.leaves(item)}


def _brief(error: Exception) -> str:
  return " ".join(str(error).split())[:300]
