"""Writers of metrics: terminal, JSON lines, TensorBoard, Weights & Biases."""

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from maskjax import storage

Values = Mapping[str, float]


class Writer(Protocol):
  """Receives a run's metrics and pictures."""

  def advance(self, step: int) -> None:
    """Is called after every step, with the number of steps done."""

  def write(self, step: int, values: Values) -> None:
    """Receives metrics by name, after `step` steps."""

  def image(self, step: int, name: str, picture: np.ndarray) -> None:
    """Receives a picture, uint8 [H, W, 3]."""

  def flush(self) -> None:
    """Stores everything that was written; is called before a checkpoint is begun."""

  def close(self) -> None:
    """Stores everything that was written, and releases files and connections."""


class Writers:
  """Several writers as one.

  Args:
    writers: are called in this order.
    settle: is called by `flush`, after the writers' own `flush`.
  """

  def __init__(
    self, writers: Sequence[Writer] = (), *, settle: Callable[[], None] = lambda: None
  ):
    self._writers = list(writers)
    self._settle = settle

  def advance(self, step: int) -> None:
    """See `Writer`."""
    for writer in self._writers:
      writer.advance(step)

  def write(self, step: int, values: Values) -> None:
    """See `Writer`."""
    for writer in self._writers:
      writer.write(step, values)

  def image(self, step: int, name: str, picture: np.ndarray) -> None:
    """See `Writer`."""
    for writer in self._writers:
      writer.image(step, name, picture)

  def flush(self) -> None:
    """See `Writer`."""
    for writer in self._writers:
      writer.flush()
    self._settle()

  def close(self) -> None:
    """See `Writer`."""
    for writer in self._writers:
      writer.close()


class JsonLines:
  """One JSON object a line, with `step` and the metrics.

  Args:
    path: of the file.
    resume_step: lines of later steps are dropped, as is an incomplete last line, so
      that a run that was killed and resumed leaves the same file as one that was not
      interrupted; None drops no step.
  """

  def __init__(self, path: str | Path, *, resume_step: int | None = None):
    self._path = Path(path)
    self._lines = [
      line
      for line in read_json_lines(path)
      if resume_step is None or line["step"] <= resume_step
    ]
    self._rewrite()

  def advance(self, step: int) -> None:
    """Does nothing."""

  def write(self, step: int, values: Values) -> None:
    """Adds a line; it replaces an earlier one of the same step and names."""
    new = {"step": step, **values}
    kept = [x for x in self._lines if x["step"] != step or x.keys() != new.keys()]
    replaces = len(kept) < len(self._lines)
    self._lines = [*kept, new]
    if replaces:
      self._rewrite()
      return
    with self._path.open("a") as file:
      file.write(json.dumps(new) + "\n")

  def image(self, step: int, name: str, picture: np.ndarray) -> None:
    """Does nothing: the file holds no pictures."""

  def flush(self) -> None:
    """Does nothing: lines are written at once."""

  def close(self) -> None:
    """Does nothing: the file is not kept open."""

  def _rewrite(self) -> None:
    fresh = self._path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
    fresh.replace(self._path)


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
  """Reads a file of JSON lines.

  Args:
    path: of the file.

  Returns:
    An object for each line, without an incomplete last one; none if there is no file.
  """
  if not Path(path).exists():
    return []
  lines = []
  for line in Path(path).read_text().splitlines():
    try:
      lines.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return lines


class TensorBoard:
  """TensorBoard event files.

  Args:
    folder: of the event files.
    resume_step: TensorBoard hides events of later steps, written before an
      interruption.
  """

  def __init__(self, folder: str | Path, *, resume_step: int = 0):
    with _hidden("torch"):
      from tensorboardX import event_file_writer, summary
      from tensorboardX.proto import event_pb2

    # Not its SummaryWriter: that one writes in a thread, which keeps events in memory
    # and prints its own traceback when the disk is full.
    self._summary = summary
    self._event = event_pb2.Event
    self._file = event_file_writer.EventsWriter(str(Path(folder) / "events"))
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(resume_step + 1, session_log=start)

  def advance(self, step: int) -> None:
    """Does nothing."""

  def write(self, step: int, values: Values) -> None:
    """Adds a point to each curve."""
    for name, value in values.items():
      self._add(step, summary=self._summary.scalar(name, value))
    self._file.flush()

  def image(self, step: int, name: str, picture: np.ndarray) -> None:
    """Adds a picture."""
    self._add(step, summary=self._summary.image(name, picture, dataformats="HWC"))
    self._file.flush()

  def flush(self) -> None:
    """Does nothing: points are written at once."""

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _add(self, step: int, **what: Any) -> None:
    self._file.write_event(self._event(wall_time=time.time(), step=step, **what))


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
  """Keeps a package from being imported meanwhile, unless it already is.

  tensorboardX imports PyTorch wherever it is installed: seconds and hundreds of MB that
  nothing here needs.
  """
  if package in sys.modules:
    yield
    return
  sys.modules[package] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    del sys.modules[package]


class WeightsAndBiases:
  """A Weights & Biases run; needs the package `wandb`.

  Args:
    project: the project's name.
    folder: the run's workdir, whose name becomes the run's name. wandb keeps its own
      files there too, unless it is on object storage.
    config: the run's config.
  """

  def __init__(self, *, project: str, folder: str | Path, config: Mapping[str, Any]):
    import wandb

    name, remote = storage.path(folder).name, storage.is_remote(folder)
    self._wandb = wandb
    self._run = wandb.init(
      project=project,
      name=name,
      id=name,
      dir=None if remote else str(folder),
      config=dict(config),
      resume="allow",
    )

  def advance(self, step: int) -> None:
    """Does nothing."""

  def write(self, step: int, values: Values) -> None:
    """Adds a point to each curve."""
    self._run.log(dict(values), step=step)

  def image(self, step: int, name: str, picture: np.ndarray) -> None:
    """Adds a picture."""
    self._run.log({name: self._wandb.Image(picture)}, step=step)

  def flush(self) -> None:
    """Does nothing: wandb sends points in the background."""

  def close(self) -> None:
    """Ends the run."""
    self._run.finish()


def has_wandb() -> bool:
  """Whether the package `wandb` is installed."""
  return importlib.util.find_spec("wandb") is not None


class Terminal:
  """A progress bar with loss, examples per second and time left.

  Where the stream is not a terminal, `write` prints a plain line instead.

  Args:
    num_steps: steps of the whole run.
    start_step: steps done before this process started.
    stream: to write to; standard output when None.
  """

  def __init__(
    self, num_steps: int, *, start_step: int = 0, stream: TextIO | None = None
  ):
    from tqdm import tqdm

    self._stream = sys.stdout if stream is None else stream
    self._num_steps = num_steps
    self._start = start_step
    self._since = time.monotonic()
    self._is_terminal = self._stream.isatty()
    self._bar = tqdm(
      total=num_steps,
      initial=start_step,
      unit="step",
      file=self._stream,
      disable=not self._is_terminal,
      dynamic_ncols=True,
    )

  def advance(self, step: int) -> None:
    """Moves the bar to `step`; tqdm shows the time left."""
    if step == self._start + 1:
      self._since = time.monotonic()  # the first step is mostly compilation
    if self._is_terminal:
      self._bar.update(step - self._bar.n)

  def write(self, step: int, values: Values) -> None:
    """Shows losses and speed beside the bar, or prints a line."""
    speed = "train/examples_per_second"
    if self._is_terminal:
      shown = {k: f"{v:.4g}" for k, v in values.items() if k.endswith("loss")}
      if speed in values:
        shown["examples/s"] = f"{values[speed]:.0f}"
      self._bar.set_postfix(shown)
      return
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
    self._stream.write(f"step {step}/{self._num_steps}  {numbers}{self._left(step)}\n")
    self._stream.flush()

  def _left(self, step: int) -> str:
    """The time left, from the mean time of a step since the start."""
    done = step - self._start - 1
    seconds = (time.monotonic() - self._since) / max(done, 1)
    return f"  left {self._bar.format_interval(seconds * (self._num_steps - step))}"

  def image(self, step: int, name: str, picture: np.ndarray) -> None:
    """Does nothing: a terminal shows no pictures."""

  def flush(self) -> None:
    """Does nothing: output is not buffered."""

  def close(self) -> None:
    """Ends the bar's line."""
    self._bar.close()
