"""Folders of weights in the layout of the Hugging Face Hub, without PyTorch.

Such a folder holds `config.json` and either `model.safetensors` or shards
`model-00001-of-00002.safetensors`, ... that `model.safetensors.index.json` lists
(https://huggingface.co/docs/safetensors).
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from maskjax.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read(
  folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads the config and the tensors of a folder.

  Args:
    folder: holds `config.json` and safetensors files.

  Returns:
    The config, and each tensor by its name, in the type it was stored in
    (bfloat16 is that of `ml_dtypes`).

  Raises:
    UserError: a file is missing or broken, or lacks a tensor of the index; names it.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise UserError(f"no folder {str(folder)!r}: expected one with {CONFIG}")
  config = _read_json(folder / CONFIG)
  # As in transformers: if there are both, the single file is read.
  if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
    return config, _read_tensors(folder / WEIGHTS)
  index = folder / INDEX
  weight_map = _read_json(index).get("weight_map")
  if not isinstance(weight_map, dict) or not weight_map:
    raise UserError(f"{index}: expected a 'weight_map' from tensors to files")
  names: dict[str, list[str]] = {}
  for name, shard in weight_map.items():
    if not isinstance(shard, str) or Path(shard).name != shard:
      raise UserError(f"{index}: {shard!r} of {name!r} is no file name in its folder")
    names.setdefault(shard, []).append(name)
  tensors: dict[str, np.ndarray] = {}
  for shard in sorted(names):
    held = _read_tensors(folder / shard)
    for name in names[shard]:
      if name not in held:
        raise UserError(
          f"{folder / shard}: no tensor {name!r}, which {INDEX} lists in it"
        )
      tensors[name] = held[name]
  return config, tensors


def write(
  folder: str | os.PathLike[str],
  config: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
  *,
  max_shard_bytes: int = 5 * 10**9,
) -> None:
  """Writes a folder that `read` and transformers can read.

  On an error no folder is left.

  Args:
    folder: must not exist, or be empty; missing parents are made.
    config: content of `config.json`.
    tensors: by name.
    max_shard_bytes: largest size of a file; a larger tensor gets a file of its own.

  Raises:
    UserError: the folder is not empty, or cannot be written; names it.

  Example:
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...   write(f"{scratch}/tiny", {"model_type": "tiny"}, {"x": np.zeros(2)})
    ...   read(f"{scratch}/tiny")
    ({'model_type': 'tiny'}, {'x': array([0., 0.])})
  """
  if max_shard_bytes < 1:
    raise UserError(f"max_shard_bytes={max_shard_bytes}: expected a positive integer")
  target = Path(folder).absolute()
  if target.exists() and not (target.is_dir() and not any(target.iterdir())):
    raise UserError(f"{folder}: exists already; expected a new or an empty folder")
  # Errors that are not of the file system come from safetensors, or from a config that
  # JSON cannot represent.
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as scratch:
      made = Path(scratch, "made")
      made.mkdir()
      _write_files(made, config, tensors, max_shard_bytes)
      made.replace(target)
  except Exception as error:
    raise UserError(f"{folder}: cannot write: {error}") from error


def _write_files(
  folder: Path,
  config: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
  max_shard_bytes: int,
) -> None:
  _write_json(folder / CONFIG, config)
  shards = list(_split(tensors, max_shard_bytes))
  files = [
    f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
  ]
  if len(shards) < 2:
    shards, files = [dict(tensors)], [WEIGHTS]
  for file, shard in zip(files, shards, strict=True):
    # safetensors ignores the strides of a transposed view, and would write its numbers
    # in the wrong order without an error.
    dense = {name: np.asarray(shard[name], order="C") for name in shard}
    save_file(dense, folder / file, metadata={"format": "pt"})
    # safetensors makes a file that other users of the machine cannot read.
    shutil.copymode(folder / CONFIG, folder / file)
  if len(shards) > 1:
    index = {
      "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
      "weight_map": {
        name: file for file, shard in zip(files, shards, strict=True) for name in shard
      },
    }
    _write_json(folder / INDEX, index)


def _split(
  tensors: Mapping[str, np.ndarray], max_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
  """Splits tensors into shards, in the order of their names."""
  shard: dict[str, np.ndarray] = {}
  held = 0
  for name in sorted(tensors):
    if shard and held + tensors[name].nbytes > max_bytes:
      yield shard
      shard, held = {}, 0
    shard[name] = tensors[name]
    held += tensors[name].nbytes
  if shard:
    yield shard


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise UserError(f"no file {str(path)!r}: weights are read from safetensors only")
  # Beside its own errors for broken files, safetensors raises those of NumPy for types
  # that NumPy lacks.
  try:
    with safe_open(path, framework="numpy") as file:
      return {name: file.get_tensor(name) for name in file.keys()}
  except Exception as error:
    raise UserError(f"{path}: cannot read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
  if not path.is_file():
    raise UserError(f"no file {str(path)!r}")
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot read: {error}") from error
  if not isinstance(content, dict):
    raise UserError(f"{path}: expected a JSON object")
  return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
  text = json.dumps(content, indent=2, sort_keys=True)
  path.write_text(text + "\n", encoding="utf-8")
