"""Sources of image files, decoded when they are read."""

import dataclasses
import io
import os
from collections.abc import Sequence
from typing import final

import numpy as np

from maskjax import storage
from maskjax.data.records import Record
from maskjax.errors import RecordError, UserError

_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
_MODES = {1: "L", 3: "RGB"}


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageFolder:
  """The image files of a folder; `image_folder` makes it.

  Attributes:
    root: the folder.
    files: the path of each record.
    classes: the name of each class; empty where there are no class folders.
    labels: int32 `[N]`, the class of each record; None where there are no class
      folders.
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


def image_folder(*, root: str, channels: int = 3) -> ImageFolder:
  """The image files under a folder, with a label where there are class folders.

  If any folder in `root` holds images, at any depth, every folder in `root` is a
  class, numbered in the order of the sorted names. Otherwise the images lie in
  `root` itself and have no labels. Names that begin with a dot are ignored.

  On object storage the folder is listed once, and each image is read by one request.

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
  """Pairs of image files, listed in a file, such as two views of one scene.

  Args:
    root: the folder, local or on object storage.
    pairs: a text file in the folder. Each line has the paths of two images, relative to
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


def _tree(root: str) -> tuple[list[str], list[str]]:
  """The folders in a folder; and all files under it, relative to it and sorted.

  Names that begin with a dot are left out.
  """
  if storage.is_remote(root):
    files = [file for file in storage.files(root) if not f"/{file}".count("/.")]
    return sorted({file.split("/")[0] for file in files if "/" in file}), files
  if not os.path.isdir(root):
    raise UserError(f"image_folder: no folder {root!r}")
  tops, files = [], []
  for path, folders, names in os.walk(root, followlinks=True):
    # os.walk descends only into the folders that stay in this list.
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
