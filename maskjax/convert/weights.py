"""Workdirs from weights of other libraries, and such weights from workdirs."""

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
  """A module that knows the layout of one kind of model.

  Attributes:
    MODEL_TYPE: as `config.json` names it.
    OBJECTIVE: name of the objective that the weights are of.
    EXPORTS: where it is there, names of others that it writes in part.
  """

  MODEL_TYPE: str
  OBJECTIVE: str

  def from_hf(
    self, config: Mapping[str, Any], tensors: Tensors
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hyperparameters of the objective, and parameters with separate blocks."""

  def to_hf(
    self, hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse: the content of `config.json`, and the tensors by name."""


# Of an objective with several kinds of encoder, first the one of its default kind.
CONVERTERS: tuple[Converter, ...] = (
  *(vit, clip, clip_vision_model, dinov2, ijepa),
  *(vit_mae, vit_mim, swin_mim, swinv2_mim, beit_mim),
  *(bert, roberta, modernbert, deberta_v2, electra),
)


def import_weights(folder: str | Path, config: ConfigDict, workdir: str | Path) -> None:
  """Makes a workdir of a folder in the Hugging Face layout.

  The workdir can be evaluated and finetuned from, but holds no optimizer's state.

  Args:
    folder: holds `config.json` and safetensors.
    config: of the objective that they are of; the folder's own shapes take the place
      of its shapes.
    workdir: must hold no checkpoints yet.

  Raises:
    UserError: the folder is not as expected, or the workdir is in use.
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
  transfer.check_same(params, _shapes(config), folder)
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
    step: which checkpoint; the newest when None.

  Raises:
    UserError: there is no such checkpoint, no such layout for its objective, or the
      folder is in use.
  """
  config = workdirs.read_config(workdir)
  # An objective with several kinds of encoder names them as model types are named.
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
  """Of a folder with a tokenizer beside its weights; None of others."""
  file = storage.path(folder) / workdirs.TOKENIZER
  return vocabularies.load(str(file)) if file.is_file() else None


def _converter(
  config: ConfigDict, model_type: str | None, what: str, *, exported: bool = False
) -> Converter:
  """The one of a config's objective and, where it is given, of a model type."""
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


def _shapes(config: ConfigDict) -> object:
  """The shapes of the parameters that a config's objective has; needs no data."""
  objective = resolve.build(objectives, config.objective)
  key, batch = jax.random.key(0), objective.batch_shapes(1)
  return jax.eval_shape(objective.init, key, batch).params
