"""Imports weights of other libraries into workdirs, and exports them from workdirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from maskjax import networks, objectives, resolve, storage
from maskjax import workdir as workdirs
from maskjax.convert import (
  beit_mim,
  bert,
  clip,
  clip_vision_model,
  deberta_v2,
  dinov2,
  electra,
  ijepa,
  modernbert,
  roberta,
  safetensors,
  swin_mim,
  swinv2_mim,
  vit,
  vit_mae,
  vit_mim,
)
from maskjax.errors import UserError
from maskjax.models import stack_blocks
from maskjax.tokens import vocabulary as vocabularies
from maskjax.tokens.vocabularies import spelled_out
from maskjax.tokens.vocabulary import Vocabulary
from maskjax.training import transfer

Tensors = Mapping[str, np.ndarray]


class Converter(Protocol):
  """A module that converts the weights of one model class.

  Attributes:
    MODEL_TYPE: as `config.json` names it.
    OBJECTIVE: name of the objective that has this network.
    EXPORTS: optional; names of further objectives that it exports, wholly or in part.
    OPTIONAL: optional; entries of the parameters that an objective may do without.
  """

  MODEL_TYPE: str
  OBJECTIVE: str

  def from_hf(
    self, config: Mapping[str, Any], tensors: Tensors
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts a `config.json` and tensors by name.

    Returns:
      Hyperparameters of the objective, and its parameters with separate blocks.
    """

  def to_hf(
    self, hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `from_hf`.

    Returns:
      The content of `config.json`, and tensors by name.
    """


# If an objective has several kinds of encoder, that of the default kind comes first.
CONVERTERS: tuple[Converter, ...] = (
  *(vit, clip, clip_vision_model, dinov2, ijepa),
  *(vit_mae, vit_mim, swin_mim, swinv2_mim, beit_mim),
  *(bert, roberta, modernbert, deberta_v2, electra),
)


def import_weights(folder: str | Path, config: ConfigDict, workdir: str | Path) -> None:
  """Makes a workdir from a folder in the Hugging Face layout.

  The workdir can be evaluated and finetuned from, but has no state of an optimizer.

  Args:
    folder: holds `config.json` and safetensors.
    config: names the objective; its hyperparameters of shapes are replaced by those of
      the folder.
    workdir: must not hold checkpoints.

  Raises:
    UserError: the folder does not hold weights of the objective, or the workdir is in
      use.
  """
  theirs, tensors = safetensors.read(folder)
  converter = _converter(config, theirs.get("model_type"), f"the weights in {folder}")
  hyperparameters, params = converter.from_hf(theirs, tensors)
  if workdirs.checkpoints(workdir, config).steps():
    raise UserError(f"workdir {workdir} has checkpoints: expected a new one")
  with config.unlocked():
    # Replaced whole: the config may name its encoder by size.
    config.objective = {**spelled_out(config.objective), **hyperparameters}
    vocabulary = _vocabulary(folder)
    if vocabulary is not None:
      config.objective.mask_id = vocabulary.mask
      config.objective.special_ids = tuple(vocabulary.special.tolist())
  if config.objective.get("scan"):
    params = stack_blocks(params)
  shapes, optional = _shapes(config), getattr(converter, "OPTIONAL", ())
  params = {k: v for k, v in params.items() if k in shapes or k not in optional}
  transfer.check_same(params, shapes, folder)
  with workdirs.opened(config, workdir) as opened:
    if vocabulary is not None:
      vocabulary.save(opened.local / workdirs.TOKENIZER)
    checkpoints = workdirs.checkpoints(opened.folder, config)
    checkpoints.save_weights(0, params)
    checkpoints.close()


def export_weights(
  workdir: str | Path, folder: str | Path, *, step: int | None = None
) -> None:
  """Writes a workdir's weights as a folder in the Hugging Face layout.

  Args:
    workdir: of a run, or of imported weights.
    folder: must not exist, or be empty.
    step: of the checkpoint; the newest when None.

  Raises:
    UserError: there is no such checkpoint, no layout for its objective, or the folder
      is not empty.
  """
  config = workdirs.read_config(workdir)
  # The kinds of encoder of an objective are named like model types.
  kind = config.objective.get("encoder_type")
  if kind is None and isinstance(config.objective.get("encoder"), ConfigDict):
    kind = config.objective.encoder.get("kind")
  converter = _converter(config, kind, f"the run in {workdir}", exported=True)
  hyperparameters = config.objective.to_dict()
  hyperparameters.pop("name")
  objective = resolve.build(objectives, config.objective)
  checkpoints = workdirs.checkpoints(workdir, config)
  _, params = networks.stored(config, objective, checkpoints, step)
  safetensors.write(folder, *converter.to_hf(hyperparameters, params))
  if vocabulary := _vocabulary(workdir):
    vocabulary.save(storage.path(folder) / workdirs.TOKENIZER)


def _vocabulary(folder: str | Path) -> Vocabulary | None:
  """The vocabulary of a folder with a tokenizer; None if it has none."""
  file = storage.path(folder) / workdirs.TOKENIZER
  return vocabularies.load(str(file)) if file.is_file() else None


def _converter(
  config: ConfigDict, model_type: str | None, what: str, *, exported: bool = False
) -> Converter:
  """The converter of a config's objective and, if it is given, of a model type."""
  name = config.objective.get("name")
  of_objective = [c for c in CONVERTERS if c.OBJECTIVE == name]
  if exported:
    of_objective += [c for c in CONVERTERS if name in getattr(c, "EXPORTS", ())]
  if not of_objective:
    known = sorted({repr(c.OBJECTIVE) for c in CONVERTERS})
    raise UserError(
      f"objective.name={name!r}: expected {' or '.join(known)} for {what}"
    )
  for converter in of_objective:
    if model_type in (converter.MODEL_TYPE, None):
      return converter
  known = sorted(repr(c.MODEL_TYPE) for c in of_objective)
  raise UserError(
    f"model_type={model_type!r}: expected {' or '.join(known)}, "
    f"since objective.name={name!r}"
  )


def _shapes(config: ConfigDict) -> Any:
  """The shapes of the parameters of a config's objective; needs no data."""
  objective = resolve.build(objectives, config.objective)
  key, batch = jax.random.key(0), objective.batch_shapes(1)
  return jax.eval_shape(objective.init, key, batch).params
