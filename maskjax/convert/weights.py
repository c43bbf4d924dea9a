"""Workdirs from weights of other libraries, and such weights from workdirs."""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from maskjax import objectives, resolve
from maskjax import workdir as workdirs
from maskjax.convert import safetensors, vit_mae
from maskjax.errors import UserError
from maskjax.models import stack_blocks
from maskjax.tokens.patches import pair
from maskjax.training import transfer


def import_weights(folder: str | Path, config: ConfigDict, workdir: str | Path) -> None:
  """Makes a workdir of a ViTMAE folder in the Hugging Face layout.

  The workdir can be evaluated and finetuned from, but holds no optimizer's state.

  Args:
    folder: holds `config.json` and safetensors.
    config: of MAE; the folder's own shapes take the place of its shapes.
    workdir: must hold no checkpoints yet.

  Raises:
    UserError: the folder is not as expected, or the workdir is in use.
  """
  hyperparameters, params = vit_mae.from_hf(*safetensors.read(folder))
  if config.objective.get("name") != "mae":
    raise UserError(
      f"objective.name={config.objective.get('name')!r}: expected 'mae' for the "
      f"weights in {folder}"
    )
  if workdirs.checkpoints(workdir, config).steps():
    raise UserError(f"workdir {workdir} has checkpoints: expected a new one")
  with config.unlocked():
    # Replaced whole: the config may name its encoder by size.
    config.objective = {**config.objective, **hyperparameters}
  if config.objective.get("scan"):
    params = stack_blocks(params)
  transfer.check_same(params, _shapes(config), folder)
  with workdirs.opened(config, workdir) as opened:
    checkpoints = workdirs.checkpoints(opened.folder, config)
    checkpoints.save_weights(0, params)
    checkpoints.close()


def export_weights(
  workdir: str | Path, folder: str | Path, *, step: int | None = None
) -> None:
  """Writes a workdir's weights as a ViTMAE folder in the Hugging Face layout.

  Args:
    workdir: of a run of MAE, or of imported weights.
    folder: must not exist, or be empty.
    step: which checkpoint; the newest when None.

  Raises:
    UserError: there is no such checkpoint, or the folder is in use.
  """
  config = workdirs.read_config(workdir)
  if config.objective.get("name") != "mae":
    raise UserError(
      f"{workdir}: objective.name={config.objective.get('name')!r}: expected 'mae'"
    )
  hyperparameters = config.objective.to_dict()
  hyperparameters.pop("name")
  _, params = workdirs.checkpoints(workdir, config).restore_weights(step)
  safetensors.write(folder, *vit_mae.to_hf(hyperparameters, params))


def _shapes(config: ConfigDict) -> object:
  """The shapes of the parameters that a config's MAE has; needs no data."""
  objective = resolve.build(objectives, config.objective)
  height, width = pair(config.objective.get("image_size", 224))
  image = jnp.zeros((1, height, width, config.objective.get("channels", 3)))
  return jax.eval_shape(objective.init, jax.random.key(0), {"image": image}).params
