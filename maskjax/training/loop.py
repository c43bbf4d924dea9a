"""The training loop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from maskjax import sharding
from maskjax.errors import RunError, TerminatedError
from maskjax.losses import Mean
from maskjax.metrics import Writer, Writers
from maskjax.objectives import Objective, Variables
from maskjax.training.step import Metrics, TrainState, program

HostBatch = Mapping[str, np.ndarray]
Batches = Callable[[int], Iterator[HostBatch]]
Evaluate = Callable[[int, TrainState], dict[str, float]]


class Saves(Protocol):
  """Where a run's states go, see `maskjax.training.checkpoints.Checkpoints`."""

  def newest(self) -> int | None:
    """The newest step whose state can be given back."""

  def save(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
    """Takes a state."""

  def restore(self, step: int, like: TrainState) -> TrainState:
    """Gives a state back, in the shapes and shardings of `like`."""

  def wait(self) -> None:
    """Waits until all states are safe."""


def fit(
  objective: Objective,
  batches: Batches,
  *,
  optimizer: optax.GradientTransformation,
  num_steps: int,
  seed: int = 0,
  mesh: Mesh | None = None,
  rules: sharding.Rules = sharding.TRANSFORMER_RULES,
  microbatches: int = 1,
  batch_warmup: tuple[int, int] = (0, 0),
  ema_decay: float = 0.0,
  initial: Callable[[Variables], Variables] | None = None,
  writer: Writer | None = None,
  log_every: int = 50,
  evaluate: Evaluate | None = None,
  eval_every: int = 0,
  checkpoints: Saves | None = None,
  checkpoint_every: int = 0,
  stop: Callable[[int], bool] = lambda step: False,
  profile: tuple[int, int] = (0, 0),
  profile_folder: str | Path = "profile",
) -> TrainState:
  """Trains an objective, from the newest checkpoint on where there is one.

  Args:
    objective: the system.
    batches: from a step on, iterates over this process's rows of each batch, NumPy
      arrays [B / processes, ...]; a `maskjax.data.Pipeline` is such a function.
    optimizer: changes the parameters.
    num_steps: optimizer steps in all.
    seed: of everything random but the data.
    mesh: the devices; all of them along `data` when None.
    rules: which parameters lie where, see `maskjax.sharding.shardings`.
    microbatches: parts of a batch that are computed one after the other.
    batch_warmup: see `maskjax.training.step.train_step`.
    ema_decay: of an average of the parameters; 0 keeps none.
    initial: changes freshly made variables, for example to pretrained ones.
    writer: takes `train/...` and `eval/...` numbers.
    log_every: steps between them; `train/...` are means over these steps.
    evaluate: from the step and the state to `eval/...` numbers.
    eval_every: steps between evaluations; there is always one at the end.
    checkpoints: keeps states, and gives back the newest to go on from.
    checkpoint_every: steps between them; there is always one at the end.
    stop: called after every step with its number; if True, the state is saved and
      training ends, see `maskjax.distributed.termination`.
    profile: the first and the last step of a profile; none when both are 0.
    profile_folder: where it goes.

  Returns:
    The state after the last step.

  Raises:
    RunError: the loss or the gradient is no finite number, or the data end too
      early; the message names the step, and the checkpoints before it are kept.
    TerminatedError: `stop` returned True.
    UserError: the batch does not divide over the mesh, or a checkpoint does not
      fit the objective.
  """
  mesh = sharding.make_mesh() if mesh is None else mesh
  writer = Writers() if writer is None else writer
  key = jax.random.key(seed)
  saved = None if checkpoints is None else checkpoints.newest()
  start = saved or 0

  def due(step: int, every: int) -> bool:
    return step == num_steps or (every > 0 and step % every == 0)

  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.set_mesh(mesh))
    stream = batches(start)
    if hasattr(stream, "close"):
      stack.callback(stream.close)

    def fetch(step: int) -> tuple[HostBatch, dict[str, jax.Array]]:
      host = _next(stream, step, num_steps)
      rows = len(next(iter(host.values()))) * jax.process_count()
      sharding.check_batch(mesh, rows, microbatches)
      return host, sharding.global_batch(mesh, host)

    host, batch = fetch(start)
    ready = program(
      objective,
      optimizer,
      batch,
      key,
      num_steps=num_steps,
      mesh=mesh,
      rules=rules,
      microbatches=microbatches,
      batch_warmup=batch_warmup,
      ema_decay=ema_decay,
    )
    if checkpoints is not None and saved is not None:
      state = checkpoints.restore(start, ready.state)
    else:
      state = ready.init(batch, key)
      state = _beginning_with(state, initial) if initial else state
    log = _Log(writer, start)
    for step in range(start + 1, num_steps + 1):
      if step == profile[0]:
        jax.profiler.start_trace(str(profile_folder))
      state, metrics = ready.step(state, batch)
      log.add(step, metrics, host)
      if step == profile[1]:
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
      if step < num_steps:
        host, batch = fetch(step)
      if due(step, log_every):
        log.write()
      leaving = step < num_steps and stop(step)
      numbers = {}
      if evaluate is not None and due(step, eval_every) and not leaving:
        log.check()
        numbers = evaluate(step, state)
        writer.write(step, numbers)
        log.restart_clock()
      if checkpoints is not None and (leaving or due(step, checkpoint_every)):
        log.check()
        writer.flush()
        checkpoints.save(step, state, numbers)
      if leaving:
        if checkpoints is not None:
          checkpoints.wait()
        raise TerminatedError(
          f"stopped by SIGTERM after step {step}; the same command goes on from it"
        )
    if checkpoints is not None:
      checkpoints.wait()
  return state


def _next(stream: Iterator[HostBatch], step: int, num_steps: int) -> HostBatch:
  try:
    return next(stream)
  except StopIteration:
    raise RunError(
      f"the data ended after step {step}: expected batches for {num_steps} steps"
    ) from None


def _beginning_with(
  state: TrainState, change: Callable[[Variables], Variables]
) -> TrainState:
  """Changes the variables of a fresh state, leaving each array where it lies."""
  fresh = Variables(state.params, state.extra)
  params, extra = jax.tree.map(
    lambda old, new: (
      old if new is old else jax.device_put(np.asarray(new, old.dtype), old.sharding)
    ),
    fresh,
    change(fresh),
  )
  ema = None if state.ema is None else jax.tree.map(lambda p: p.copy(), params)
  return dataclasses.replace(state, params=params, extra=extra, ema=ema)


class _Log:
  """Collects what the steps report, without making the device wait for it."""

  def __init__(self, writer: Writer, start: int):
    self._writer = writer
    self._first = start + 1
    self._step = start
    self._pending: list[tuple[int, Metrics]] = []
    self._totals: dict[str, Mean] = {}
    self._bad_records = 0
    self._rows = 0
    self._clock = time.monotonic()
    self._seconds = 0.0

  def add(self, step: int, metrics: Metrics, host: HostBatch) -> None:
    """Takes what a step reports; waits for the step before it."""
    self._step = step
    self._pending.append((step, metrics))
    self._rows += len(next(iter(host.values()))) * jax.process_count()
    if "bad_records" in host:
      self._bad_records += int(host["bad_records"].sum())
    # The host may run ahead of the device by one step: enough to keep it busy, and
    # the progress shown is true.
    if step == self._first:
      self.check()
      self._rows, self._seconds = 0, 0.0  # the first step is mostly compilation
    elif len(self._pending) > 1:
      jax.block_until_ready(self._pending[-2][1]["loss"].sum)
    self._writer.advance(step)

  def restart_clock(self) -> None:
    """Does not count the time since the last step."""
    self._clock = time.monotonic()

  def check(self) -> None:
    """Reads the pending reports, and stops at a number that is not finite."""
    for step, metrics in jax.device_get(self._pending):
      for name in ("loss", "grad_norm"):
        value = float(metrics[name].value())
        if not np.isfinite(value):
          raise RunError(
            f"step {step}: {name} is {value}: expected a finite number; "
            "the checkpoints before it are kept"
          )
      for name, mean in metrics.items():
        so_far = self._totals.get(name)
        self._totals[name] = mean if so_far is None else so_far + mean
    now = time.monotonic()
    self._seconds, self._clock = self._seconds + now - self._clock, now
    self._pending = []

  def write(self) -> None:
    """Writes the means since it wrote last."""
    self.check()
    values = {f"train/{k}": float(mean.value()) for k, mean in self._totals.items()}
    if self._seconds > 0 and self._rows:
      values["train/examples_per_second"] = self._rows / self._seconds
    if self._bad_records:
      values["train/bad_records"] = self._bad_records
    self._writer.write(self._step, values)
    self._totals, self._rows, self._seconds = {}, 0, 0.0
