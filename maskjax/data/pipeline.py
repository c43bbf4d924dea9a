"""From a source to the batches of a step, the same on any number of processes.

The batch of a step is a function of the seed and the step only. A run thus resumes by
reading the batches from its step on, and the number of threads and processes can
change without changing the data.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np

from maskjax.data.records import Record, Source, Transform, is_random
from maskjax.errors import RecordError, UserError, did_you_mean

Batch = dict[str, np.ndarray]

# After this many bad records in a row the whole source must be bad.
_MOST_SKIPPED = 100


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
  """Reads, transforms, shuffles, shards and batches the records of a source.

  Besides the record's own entries a batch holds `index`, int32 `[B]`, the index
  of each record in the source. Without `repeat`, each record comes once, the last
  batch is padded with copies of its last record, and `valid`, bool `[B]`, is False in
  the rows that do not count: the padding, and substitutes of bad records.

  Attributes:
    source: the records.
    batch_size: of the global batch, over all processes.
    seed: of the order and of the random transforms, from 0 to 2**32 - 1.
    transforms: functions of `(record)` or `(record, rng)`, applied in turn.
    shuffle: whether each epoch has a new random order, instead of the source's.
    repeat: whether epochs follow each other without end, instead of a single one.
    on_bad_record: `"raise"` a RecordError, or `"skip"` to the next good record
      of the source; then `bad_records`, int32 `[B]`, counts those passed over.
    num_threads: threads that make batches ahead; with 0 each is made when it is read.
    prefetch: number of batches made ahead.
    process_index: the index of this process; None for JAX's.
    process_count: the number of processes; None for JAX's.

  Example:
    >>> from maskjax.data import arrays
    >>> pipeline = Pipeline(source=arrays(label=range(10)), batch_size=4)
    >>> with pipeline(start_step=7) as batches:
    ...   batch = next(batches)
    >>> batch["label"].shape
    (4,)
  """

  source: Source
  batch_size: int
  seed: int = 0
  transforms: Sequence[Transform] = ()
  shuffle: bool = True
  repeat: bool = True
  on_bad_record: str = "raise"
  num_threads: int = 2
  prefetch: int = 2
  process_index: int | None = None
  process_count: int | None = None

  def __post_init__(self) -> None:
    if len(self.source) == 0:
      raise UserError(f"the source {_short(self.source)} is empty")
    if self.batch_size < 1:
      raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
    if not 0 <= self.seed < 2**32:
      raise UserError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
    if self.on_bad_record not in ("raise", "skip"):
      hint = did_you_mean(self.on_bad_record, ("raise", "skip"))
      raise UserError(f"no on_bad_record {self.on_bad_record!r}: {hint}")
    for transform in self.transforms:
      _check_transform(transform)
    if self.process_count is not None:
      _check_process(self.batch_size, self.process_index or 0, self.process_count)

  @property
  def steps_per_epoch(self) -> int:
    """Batches of an epoch, the last of which may have fewer records."""
    return (len(self.source) + self.batch_size - 1) // self.batch_size

  def __call__(self, start_step: int = 0) -> "Batches":
    """Starts reading.

    Args:
      start_step: the step of the first batch.

    Returns:
      An iterator over this process's part of each batch, arrays
      `[batch_size / process_count, ...]`. Close it, or use it in a `with`.

    Raises:
      UserError: the batch does not divide among the processes. While iterating:
        records of a batch differ in shape, or a transform refuses one.
      RecordError: while iterating: a record cannot be read.
    """
    # Grain takes a second to import.
    import grain

    if start_step < 0:
      raise UserError(f"start_step must not be negative, got {start_step}")
    index, count = self.process_index, self.process_count
    if index is None or count is None:
      import jax

      index = jax.process_index() if index is None else index
      count = jax.process_count() if count is None else count
    _check_process(self.batch_size, index, count)

    records = _Records(self.source, self.on_bad_record == "skip")
    rows = grain.MapDataset.source(records).seed(self.seed)
    if self.shuffle:
      rows = rows.shuffle()
    if self.repeat:
      rows = rows.repeat()
    for transform in self.transforms:
      rows = rows.random_map(transform) if is_random(transform) else rows.map(transform)
    steps = _Steps(rows, self.batch_size, index, count, mark_valid=not self.repeat)
    options = grain.ReadOptions(
      num_threads=self.num_threads, prefetch_buffer_size=self.prefetch
    )
    dataset = grain.MapDataset.source(steps)[start_step:].to_iter_dataset(options)
    return Batches(iter(dataset))


@final
class Batches(Iterator[Batch]):
  """The batches of a pipeline, in the order of the steps."""

  def __init__(self, iterator: Any):
    self._iterator = iterator
    self._error: Exception | None = None

  def __next__(self) -> Batch:
    # Grain would skip the failed batch, and every later step would get another one.
    if self._error is not None:
      raise self._error
    try:
      return next(self._iterator)
    except StopIteration:
      raise
    except Exception as error:
      self._error = error
      self.close()
      raise

  def close(self) -> None:
    """Stops the threads that read ahead."""
    self._iterator.close()

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


class _Records:
  """The source's records with their `index`; a bad one is replaced by the next good."""

  def __init__(self, source: Source, skip: bool):
    self._source = source
    self._skip = skip

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    tries = min(len(self), _MOST_SKIPPED)
    for passed in range(tries):
      at = (index + passed) % len(self)
      try:
        record = {**self._source[at], "index": np.asarray(at, np.int32)}
      except Exception as error:
        # Errors of a source about anything but the record stay as they are.
        if isinstance(error, UserError) and not isinstance(error, RecordError):
          raise
        # The message is complete, because the cause is lost between processes.
        kind = "" if isinstance(error, RecordError) else f"{type(error).__name__}: "
        message = f"record {at} of {_short(self._source)}: {kind}{error}"
        if not self._skip:
          raise RecordError(message) from error
      else:
        if self._skip:
          record["bad_records"] = np.asarray(passed, np.int32)
        return record
    raise RecordError(f"{tries} bad records in a row; the last: {message}")


class _Steps:
  """The batch of each step, or rather one process's block of its rows.

  A process has consecutive rows of the global batch, so that the order of the rows does
  not depend on the number of processes.
  """

  def __init__(
    self,
    rows: Sequence[Record],
    batch_size: int,
    process_index: int,
    process_count: int,
    *,
    mark_valid: bool,
  ):
    self._rows = rows
    self._batch_size = batch_size
    self._block = batch_size // process_count
    self._offset = process_index * self._block
    self._mark_valid = mark_valid

  def __len__(self) -> int:
    return (len(self._rows) + self._batch_size - 1) // self._batch_size

  def __getitem__(self, step: int) -> Batch:
    first = step * self._batch_size + self._offset
    numbers = range(first, first + self._block)
    last = len(self._rows) - 1
    rows = [self._rows[number] for number in numbers if number <= last]
    rows = rows or [self._rows[last]]
    batch = _stack(rows + rows[-1:] * (self._block - len(rows)))
    if self._mark_valid:
      batch["valid"] = np.array([number <= last for number in numbers])
      if "bad_records" in batch:
        batch["valid"] &= batch["bad_records"] == 0
    return batch


def _stack(records: Sequence[Record]) -> Batch:
  """Stacks records whose entries agree in shape and dtype."""
  batch = {}
  for record in records:
    if record.keys() != records[0].keys():
      raise UserError(
        "the records of a batch differ in their keys: "
        f"{sorted(records[0])} and {sorted(record)}"
      )
  for key in records[0]:
    entries = [np.asarray(record[key]) for record in records]
    kinds = {(entry.shape, entry.dtype) for entry in entries}
    if len(kinds) > 1:
      listed = sorted(f"{dtype} {list(shape)}" for shape, dtype in kinds)
      raise UserError(
        f"the records of a batch differ in {key!r}: {', '.join(listed[:5])}; "
        "add a transform such as 'resize', 'center_crop' or 'random_resized_crop' "
        "with size=(height, width)"
      )
    batch[key] = np.stack(entries)
  return batch


def _check_transform(transform: Transform) -> None:
  given = ("record", "rng") if is_random(transform) else ("record",)
  try:
    inspect.signature(transform).bind(*given)
  except TypeError as error:
    name = getattr(getattr(transform, "func", transform), "__name__", transform)
    raise UserError(f"the transform {name}: {error}") from error


def _check_process(batch_size: int, index: int, count: int) -> None:
  if not 0 <= index < count:
    raise UserError(f"process_index {index} is not below process_count {count}")
  if batch_size % count:
    raise UserError(f"batch_size {batch_size} does not divide among {count} processes")


def _short(source: Source) -> str:
  return f"{source!r:.200}"
