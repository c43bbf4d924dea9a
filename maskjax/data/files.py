"""Sources of records that lie in files and are decoded when they are read."""

import dataclasses
import difflib
import glob
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from maskjax import storage
from maskjax.data.records import Record
from maskjax.errors import RecordError, UserError
from maskjax.resolve import find

_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
_MODES = {1: "L", 3: "RGB"}


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageFolder:
  """The image files of a folder; `image_folder` makes it.

  Attributes:
    root: the folder.
    files: the path of each record.
    classes: the name of each class; empty where there are no labels.
    labels: the class of each record, int32 `[N]`; None where there are none.
    channels: 1 or 3.
  """

  root: str
  files: Sequence[str]
  classes: Sequence[str]
  labels: np.ndarray | None
  channels: int

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> Record:
    record = {"image": _decode_image(self.files[index], self.channels)}
    if self.labels is not None:
      record["label"] = np.asarray(self.labels[index])
    return record

  def __repr__(self) -> str:
    return f"image_folder(root={self.root!r})"


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImagePairs:
  """Pairs of image files; `image_pairs` makes it.

  Attributes:
    name: for messages.
    pairs: the two paths of each record.
    channels: 1 or 3.
  """

  name: str
  pairs: Sequence[tuple[str, str]]
  channels: int

  def __len__(self) -> int:
    return len(self.pairs)

  def __getitem__(self, index: int) -> Record:
    first, second = self.pairs[index]
    return {
      "image": _decode_image(first, self.channels),
      "image2": _decode_image(second, self.channels),
    }

  def __repr__(self) -> str:
    return self.name


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decoded:
  """Another library's random-access source, through a function to records."""

  raw: Any
  decode: Callable[[Any], Record]
  name: str

  def __len__(self) -> int:
    return len(self.raw)

  def __getitem__(self, index: int) -> Record:
    return self.decode(self.raw[index])

  def __repr__(self) -> str:
    return self.name


def image_folder(*, root: str, channels: int = 3) -> ImageFolder:
  """The image files under a folder, with a label where there are class folders.

  If any folder in `root` holds images, at any depth, every folder in `root` is a
  class, numbered in the order of the sorted names. Otherwise the images lie in
  `root` itself and have no labels. Names that begin with a dot do not count.

  On object storage the folder is listed once, and each image read when it is asked
  for, by one request.

  Args:
    root: the folder, local or on object storage.
    channels: 1 for gray, 3 for RGB.

  Returns:
    A source of `image` uint8 `[H, W, channels]`, in the sizes of the files, and
    with class folders `label` int32. Its `classes` are the folders' names.

  Raises:
    UserError: no such folder, no images in it, or images both in it and in class
      folders. (A file that cannot be decoded raises RecordError when it is read.)
  """
  if channels not in _MODES:
    raise UserError(f"image_folder takes channels=1 or 3, got {channels!r}")
  folders, found = _tree(root)
  images = [file for file in found if file.lower().endswith(_EXTENSIONS)]
  classes = [name for name in sorted(folders) if not name.startswith(".")]
  flat = [os.path.join(root, file) for file in images if "/" not in file]
  members: dict[str, list[str]] = {name: [] for name in classes}
  for file in images:
    top, _, rest = file.partition("/")
    if rest:
      members[top].append(os.path.join(root, file))
  files = [file for name in classes for file in members[name]]
  if flat and files:
    raise UserError(
      f"image_folder: {root!r} holds images ({os.path.basename(flat[0])!r}) beside "
      f"class folders ({os.path.relpath(files[0], root)!r}): keep one of the two"
    )
  if not flat and not files:
    raise UserError(
      f"image_folder: no images in {root!r} or the folders in it; looked for "
      f"{', '.join(_EXTENSIONS)}"
    )
  if flat:
    return ImageFolder(root, flat, (), None, channels)
  counts = [len(members[name]) for name in classes]
  labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
  return ImageFolder(root, files, classes, labels, channels)


def image_pairs(
  *, root: str, pairs: str = "pairs.txt", channels: int = 3
) -> ImagePairs:
  """Pairs of image files that a list names, such as two views of one scene.

  Args:
    root: the folder, local or on object storage.
    pairs: a text file in it, each line of which holds the paths of two images within
      the folder, with a space between them.
    channels: 1 for gray, 3 for RGB.

  Returns:
    A source of `image` and `image2`, uint8 `[H, W, channels]`.

  Raises:
    UserError: no such folder or list, or a line without two paths. (A file that cannot
      be decoded raises RecordError when it is read.)
  """
  if channels not in _MODES:
    raise UserError(f"image_pairs takes channels=1 or 3, got {channels!r}")
  name = f"image_pairs(root={root!r}, pairs={pairs!r})"
  path = storage.reach(root) / pairs
  try:
    lines = path.read_text().splitlines()
  except FileNotFoundError as error:
    raise UserError(f"{name}: no file {str(path)!r}") from error
  except storage.errors(UnicodeDecodeError) as error:
    raise UserError(f"{name}: cannot read {str(path)!r}: {error}") from error
  found = [line.split() for line in lines if line.strip()]
  for words in found:
    if len(words) != 2:
      raise UserError(f"{name}: expected two paths a line, found {' '.join(words)!r}")
  if not found:
    raise UserError(f"{name}: expected two paths a line, found no line")
  paths = [(os.path.join(root, a), os.path.join(root, b)) for a, b in found]
  return ImagePairs(name, paths, channels)


def array_record(
  *, paths: str | Sequence[str], decode: str | Callable[[bytes], Record]
) -> Decoded:
  """The records of ArrayRecord files.

  The library reads local files alone. Files on object storage are copied to this
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

  import maskjax.data  # not above: that package is importing this file

  name = f"array_record(paths={paths!r})"
  files = _matching(paths) if isinstance(paths, str) else list(paths)
  if not files:
    raise UserError(f"{name}: no file {paths!r}")
  files = [_local(file, name) for file in files]
  function = find(maskjax.data, decode) if isinstance(decode, str) else decode
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
    where: what messages call it.
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
    raise UserError(f"{where}: no such split, it has {sorted(info.splits)}") from error
  if storage.is_remote(builder.data_dir):
    builder = tensorflow_datasets.builder_from_directory(_copied(builder, split))
  try:
    raw = builder.as_data_source(split)
    found = len(raw)
  except Exception as error:
    raise UserError(
      f"cannot open {where}: {error}; to prepare it: {command}"
    ) from error
  # Some of the library's file formats lose records without a word.
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
  """Copies what TFDS needs of a prepared data set to read a split."""
  remote = str(builder.data_dir)
  records = set(builder.info.splits[split].filenames)
  names = [
    name
    for name in storage.files(remote)
    if name in records or name.endswith((".json", ".txt"))
  ]
  return str(storage.local_copy(remote, names))


def _tree(root: str) -> tuple[list[str], list[str]]:
  """The folders in a folder; and all files under it, relative to it and sorted.

  What begins with a dot does not count.
  """
  if storage.is_remote(root):
    files = [file for file in storage.files(root) if not f"/{file}".count("/.")]
    return sorted({file.split("/")[0] for file in files if "/" in file}), files
  if not os.path.isdir(root):
    raise UserError(f"image_folder: no folder {root!r}")
  tops, files = [], []
  for path, folders, names in os.walk(root, followlinks=True):
    # os.walk goes on into the folders that this list is left with.
    folders[:] = [name for name in folders if not name.startswith(".")]
    within = os.path.relpath(path, root)
    tops += folders if within == "." else []
    files += [
      os.path.normpath(os.path.join(within, name))
      for name in names
      if not name.startswith(".")
    ]
  return tops, sorted(files)


def _decode_image(path: str, channels: int) -> np.ndarray:
  from PIL import Image

  try:
    file = io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else path
    with Image.open(file) as image:
      # Pillow would clip the 16 and 32 bits of these modes to a byte.
      if image.mode[0] in "IF":
        raise RecordError(f"{path!r} is not an 8-bit image (mode {image.mode!r})")
      # [H, W] or [H, W, 3]
      pixels = np.asarray(image.convert(_MODES[channels]))
  except RecordError:
    raise
  except Exception as error:
    raise RecordError(
      f"cannot decode {path!r}: {type(error).__name__}: {error}"
    ) from error
  return pixels.reshape(*pixels.shape[:2], channels)
