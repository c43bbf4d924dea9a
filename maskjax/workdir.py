"""The folder in which a run lives."""

import json
from pathlib import Path

import jax
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax.errors import UserError
from maskjax.training.checkpoints import Checkpoints


def open_for(config: ConfigDict, workdir: str | Path) -> Path:
  """Makes a workdir for a config, or opens one that is of the same config.

  Raises:
    UserError: it belongs to another config (says which keys differ), or cannot be
      written.
  """
  folder = Path(workdir)
  written = configs.plain(config)
  try:
    if (folder / "config.json").exists():
      found = configs.differences(configs.plain(read_config(folder)), written)
      if found:
        raise UserError(
          f"workdir {folder} belongs to another config: {'; '.join(found)}; "
          "expected the same config, or another workdir"
        )
    elif (folder / "checkpoints").exists():
      raise UserError(f"workdir {folder} has checkpoints but no config.json")
    if jax.process_index() == 0:
      folder.mkdir(parents=True, exist_ok=True)
      fresh = folder / "config.json.tmp"
      try:
        fresh.write_text(json.dumps(written, indent=2) + "\n")
        fresh.replace(folder / "config.json")
      finally:
        fresh.unlink(missing_ok=True)
  except OSError as error:
    raise UserError(f"workdir {folder} cannot be written: {error.strerror}") from error
  return folder


def read_config(workdir: str | Path) -> ConfigDict:
  """Reads the config of a workdir.

  Raises:
    UserError: it has none, or one that cannot be read.
  """
  path = Path(workdir) / "config.json"
  try:
    return configs.complete(ConfigDict(json.loads(path.read_text())))
  except FileNotFoundError:
    raise UserError(f"{workdir}: expected a workdir with a config.json") from None
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}") from error


def checkpoints(workdir: str | Path, config: ConfigDict) -> Checkpoints:
  """The checkpoints of a workdir."""
  return Checkpoints(Path(workdir) / "checkpoints", keep=config.checkpoint.keep)
