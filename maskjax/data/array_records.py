"""Sources of records in ArrayRecord files, TensorFlow Datasets' among them."""

import dataclasses
import difflib
import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from maskjax import storage
from maskjax.data.records import Record
from maskjax.errors import UserError
from maskjax.resolve import find_by_path


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decoded:
  """A random-access source of another library, decoded to records one by one.

  Attributes:
    raw: the other library's source.
    decode: from one of its items to a record.
    name: what error messages call the source.
  """

  raw: Any
  decode: Callable[[Any], Record]
  name: str

  def __len__(self) -> int:
    return len(self.raw)

  def __getitem__(self, index: int) -> Record:
    return self.decode(self.raw[index])

  def __repr__(self) -> str:
    return self.name


def array_record(
  *, paths: str | Sequence[str], decode: str | Callable[[bytes], Record]
) -> Decoded:
  """The records of ArrayRecord files.

  The library reads local files only. Files on object storage are copied to this
  host once, see `maskjax.storage.local_copy`; the disk has to hold them.

  Args:
    paths: a glob pattern, read in sorted order, or the files themselves.
    decode: from a record's bytes to a dict of arrays; a function, or its import
      path such as `"my_lab.records:decode"`.

  Returns:
    A source of the files' records, one file after the other.

  Raises:
    UserError: no such files, not ArrayRecord files, or no such `decode`.
  """
  from array_record.python.array_record_data_source import ArrayRecordDataSource

  name = f"array_record(paths={paths!r})"
  files = _matching(paths) if isinstance(paths, str) else list(paths)
  if not files:
    raise UserError(f"{name}: no file {paths!r}")
  files = [_local(file, name) for file in files]
  function = find_by_path(decode) if isinstance(decode, str) else decode
  try:
    raw = ArrayRecordDataSource(files)
  except Exception as error:  # the C++ reader raises RuntimeError, ValueError, ...
    raise UserError(f"cannot open {name}: {error}") from error
  return Decoded(raw, function, name)


def tfds(
  *,
  dataset: str,
  split: str,
  data_dir: str | None = None,
  image_key: str = "image",
  label_key: str | None = "label",
) -> Decoded:
  """A data set that TensorFlow Datasets has prepared as ArrayRecord files.

  Reading needs no TensorFlow. Preparing does, for most of its data sets. The split's
  files are copied to this host once where `data_dir` is on object storage, see
  `maskjax.storage.local_copy`.

  Args:
    dataset: its name, with config and version if wanted: `"cifar10:3.0.2"`.
    split: a split or a slice of one: `"train"`, `"train[:10%]"`.
    data_dir: where data sets are prepared, locally or on object storage; None for
      the library's own default.
    image_key: the feature that is the image.
    label_key: the feature that is the label; None for records without one.

  Returns:
    A source of `image` `[H, W, C]` in its feature's dtype, and `label` int32.

  Raises:
    UserError: no such data set, split or feature, or one that is not prepared.
  """
  where = f"tfds(dataset={dataset!r}, split={split!r})"
  features = [key for key in (image_key, label_key) if key is not None]
  raw = tfds_examples(where, dataset, split, data_dir=data_dir, features=features)

  def decode(example: Mapping[str, Any]) -> Record:
    record = {"image": np.asarray(example[image_key])}
    if label_key is not None:
      record["label"] = np.asarray(example[label_key], np.int32)
    return record

  return Decoded(raw, decode, where)


def tfds_examples(
  where: str,
  dataset: str,
  split: str,
  *,
  data_dir: str | None,
  features: Sequence[str],
) -> Sequence[Mapping[str, Any]]:
  """The examples of a data set that TensorFlow Datasets has prepared, see `tfds`.

  Args:
    where: what error messages call it.
    dataset: see `tfds`.
    split: see `tfds`.
    data_dir: see `tfds`.
    features: those that it must have.

  Raises:
    UserError: see `tfds`.
  """
  import tensorflow_datasets

  if data_dir is not None:
    storage.reach(data_dir)
  try:
    builder = tensorflow_datasets.builder(
      dataset, data_dir=data_dir, file_format="array_record"
    )
  except tensorflow_datasets.core.DatasetNotFoundError as error:
    # Its message lists some hundreds of names, a line each. (Asking the library
    # for the list would import TensorFlow.)
    near = difflib.get_close_matches(dataset, re.findall(r"\t- (\w+)", str(error)))
    hint = f"did you mean {' or '.join(near)}?" if near else "no name is near it"
    raise UserError(
      f"{where}: TensorFlow Datasets has no {dataset!r}; {hint}"
    ) from error
  except Exception as error:  # no such version or config: several types
    raise UserError(f"cannot open {where}: {error}") from error
  command = f"tfds build {dataset} --file_format=array_record"
  if data_dir is not None:
    command += f" --data_dir={data_dir}"
  if not builder.is_prepared():
    raise UserError(
      f"{where} is not prepared in {str(builder.data_dir)!r}; with "
      f"tensorflow-cpu and importlib_resources installed, run: {command}"
    )
  info = builder.info
  for key in features:
    if key not in info.features:
      raise UserError(f"{where} has no feature {key!r}: it has {sorted(info.features)}")
  try:
    expected = info.splits[split].num_examples
  except (KeyError, ValueError) as error:
    raise UserError(
      f"{where}: no split {split!r}: it has {sorted(info.splits)}"
    ) from error
  if storage.is_remote(builder.data_dir):
    builder = tensorflow_datasets.builder_from_directory(_copied(builder, split))
  try:
    raw = builder.as_data_source(split)
    found = len(raw)
  except Exception as error:
    raise UserError(
      f"cannot open {where}: {error}; to prepare it: {command}"
    ) from error
  # Some of the library's file formats lose records silently.
  if found != expected:
    raise UserError(
      f"{where} should have {expected} records, but {found} are in "
      f"{str(builder.data_dir)!r}; prepare it again: {command}"
    )
  return raw


def _matching(pattern: str) -> list[str]:
  if storage.is_remote(pattern):
    return storage.matching(pattern)
  return sorted(glob.glob(pattern))


def _local(file: str, name: str) -> str:
  if storage.is_remote(file):
    folder, _, base = file.rpartition("/")
    return str(storage.local_copy(folder, [base]) / base)
  if not os.path.isfile(file):
    raise UserError(f"{name}: no file {file}")
  return file


def _copied(builder: Any, split: str) -> str:
  """Copies the files that TFDS needs to read a split; returns their local folder."""
  remote = str(builder.data_dir)
  records = set(builder.info.splits[split].filenames)
  names = [
    name
    for name in storage.files(remote)
    if name in records or name.endswith((".json", ".txt"))
  ]
  return str(storage.local_copy(remote, names))
