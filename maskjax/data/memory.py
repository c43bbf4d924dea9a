"""Sources of records in memory."""

import dataclasses
import gzip
import importlib.util
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from etils import epath
from numpy.typing import ArrayLike

from maskjax import storage
from maskjax.data.records import Record
from maskjax.errors import UserError, did_you_mean


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Arrays:
  """A source whose record `i` is row `i` of every array.

  Attributes:
    columns: arrays `[N, ...]` by the names of the record's entries.
    name: what error messages call the source.
  """

  columns: Mapping[str, np.ndarray]
  name: str

  def __len__(self) -> int:
    return len(next(iter(self.columns.values())))

  def __getitem__(self, index: int) -> Record:
    return {key: np.asarray(column[index]) for key, column in self.columns.items()}

  def __repr__(self) -> str:
    return self.name


def arrays(**columns: ArrayLike) -> Arrays:
  """A source of arrays in memory.

  Args:
    **columns: arrays `[N, ...]` of one leading length, for instance
      `image=[N, H, W, C]` and `label=[N]`. Integer labels become int32.

  Returns:
    A source of N records.

  Raises:
    UserError: no arrays, or arrays of different leading lengths.

  Example:
    >>> source = arrays(image=np.zeros((5, 2, 2, 1), np.uint8), label=range(5))
    >>> len(source), int(source[3]["label"])
    (5, 3)
  """
  return _arrays(columns, f"arrays({', '.join(columns)})")


def digits(*, split: str = "train") -> Arrays:
  """The handwritten digits that come with scikit-learn, in a fixed split.

  Args:
    split: `"train"` (1,437 images), `"test"` (360) or `"all"` (1,797).

  Returns:
    A source of `image` uint8 `[8, 8, 1]`, of 17 gray levels from 0 to 255, and
    `label` int32.

  Raises:
    UserError: no such split.
  """
  # The images come in runs by writer and digit, hence a shuffled split. The
  # legacy generator is the one whose stream NumPy promises never to change.
  order = np.random.RandomState(0).permutation(1797)
  splits = {"train": order[360:], "test": order[:360], "all": np.arange(1797)}
  if split not in splits:
    raise UserError(f"digits has no split {split!r}: {did_you_mean(split, splits)}")
  chosen = splits[split]
  table = _table_of_digits()[chosen]
  image = np.round(table[:, :64] * (255 / 16)).astype(np.uint8)
  columns = {"image": image.reshape(-1, 8, 8, 1), "label": table[:, 64]}
  return _arrays(columns, f"digits(split={split!r})")


def _table_of_digits() -> np.ndarray:
  """Rows `[1797, 65]` of 64 gray levels and a label.

  The file is read where it lies: to import scikit-learn takes two seconds.
  """
  package = importlib.util.find_spec("sklearn")
  if package is None or not package.submodule_search_locations:
    raise UserError("the digits need scikit-learn: pip install scikit-learn")
  file = Path(package.submodule_search_locations[0], "datasets/data/digits.csv.gz")
  with gzip.open(file) as lines:
    return np.loadtxt(lines, np.int32, delimiter=",")


def idx(*, root: str, split: str = "train") -> Arrays:
  """Images and labels in IDX files, as of MNIST, plain or gzipped.

  Args:
    root: the folder, local or on object storage, of `train-images-idx3-ubyte`,
      `train-labels-idx1-ubyte` and their `t10k-` counterparts, with or without `.gz`.
    split: `"train"` or `"test"`.

  Returns:
    A source of `image` uint8 `[H, W, 1]` and `label` int32.

  Raises:
    UserError: no such split or folder, or a file that is missing, truncated or
      not of this format.
  """
  prefixes = {"train": "train", "test": "t10k"}
  if split not in prefixes:
    raise UserError(f"idx has no split {split!r}: {did_you_mean(split, prefixes)}")
  folder = storage.reach(root)
  if not folder.is_dir():
    raise UserError(
      f"no folder {root!r} of IDX files; for Fashion-MNIST install the Debian "
      "package dataset-fashion-mnist and set root='/usr/share/datasets/"
      "fashion-mnist', or use the source 'tfds' with dataset='fashion_mnist'"
    )
  columns = {
    "image": _read_idx(folder, f"{prefixes[split]}-images-idx3-ubyte", 3)[..., None],
    "label": _read_idx(folder, f"{prefixes[split]}-labels-idx1-ubyte", 1),
  }
  return _arrays(columns, f"idx(root={root!r}, split={split!r})")


def _arrays(columns: Mapping[str, ArrayLike], name: str) -> Arrays:
  arrays = {key: np.asarray(column) for key, column in columns.items()}
  lengths = {key: len(a) if a.ndim else None for key, a in arrays.items()}
  if len(set(lengths.values())) != 1 or None in lengths.values():
    raise UserError(f"{name} needs arrays of one leading length, got {lengths}")
  if "label" in arrays and arrays["label"].dtype.kind in "iu":
    arrays["label"] = arrays["label"].astype(np.int32)
  return Arrays(arrays, name)


def _read_idx(folder: epath.Path, name: str, ndim: int) -> np.ndarray:
  """Reads a file of unsigned bytes in `ndim` dimensions."""
  path = folder / name
  if not path.exists():
    path = folder / f"{name}.gz"
  try:
    data = path.read_bytes()
    if path.suffix == ".gz":
      data = gzip.decompress(data)
  except FileNotFoundError as error:
    raise UserError(f"neither {name} nor {name}.gz is in {str(folder)!r}") from error
  except storage.errors(EOFError, zlib.error) as error:
    raise UserError(f"cannot read {str(path)!r}: {error}") from error
  # Two zero bytes, 8 for unsigned bytes, the number of dimensions, then the size
  # of each as a big-endian int32.
  magic, header = bytes((0, 0, 8, ndim)), 4 + 4 * ndim
  if data[:4] != magic:
    raise UserError(
      f"{str(path)!r} is not an IDX file of {ndim}-dimensional unsigned bytes: it "
      f"begins with {data[:4].hex()!r}, not {magic.hex()!r}"
    )
  shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4)]
  expected = header + int(np.prod(shape))
  if len(data) != expected:
    raise UserError(
      f"{str(path)!r} is truncated or damaged: it holds {len(data)} bytes where "
      f"its header promises {expected}"
    )
  return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
