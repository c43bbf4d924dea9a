"""Converts `ElectraForPreTraining` of Hugging Face Transformers, a discriminator.

It classifies tokens as original or replaced, as the objective `token_substitution`
does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import bert, layout, texts
from maskjax.errors import UserError
from maskjax.systems import token_substitution

MODEL_TYPE = "electra"
OBJECTIVE = "token_substitution"

# Defaults of `ElectraConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "embedding_size": 128,
  "hidden_act": "gelu",
  "hidden_size": 256,
  "intermediate_size": 1024,
  "layer_norm_eps": 1e-12,
  "max_position_embeddings": 512,
  "num_attention_heads": 4,
  "num_hidden_layers": 12,
  "type_vocab_size": 2,
  "vocab_size": 30522,
}
# The network, as hyperparameters of `token_substitution`.
OPTIONS: Mapping[str, Any] = {"task": "rts", "head_norm": False}


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns an `ElectraForPreTraining` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.

  Returns:
    Keyword arguments for `maskjax.systems.token_substitution` (all but those of
    masking), and the parameters of its model: a tree of float32 arrays with separate
    blocks.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it. Names the key or the tensors.
  """
  pad = texts.pad_of(config, 0)
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed=bert.FIXED
  )
  hyperparameters = {
    **OPTIONS,
    **texts.hyperparameters_of(
      config,
      MODEL_TYPE,
      pad=pad,
      types=config["type_vocab_size"],
      embed_width=config["embedding_size"],
    ),
  }
  return hyperparameters, layout.to_params(_entries(config), tensors)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of `maskjax.systems.token_substitution`. Those
      that do not shape the network are ignored.
    params: the parameters of its model, with separate or with scanned blocks.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  model = token_substitution(
    **{"mask_id": 0, "special_ids": (), **hyperparameters}
  ).model
  if getattr(model, "normalizes", True):
    raise UserError(
      "token_substitution: transformers takes task='rts' with head_norm=False only"
    )
  encoder = model.encoder
  texts.check_kind(encoder, MODEL_TYPE, ("positions", "windows", "norm_last"))
  pad = hyperparameters.get("pad_id", 0)
  config = {
    **DEFAULTS,
    **texts.config_of(encoder, MODEL_TYPE, "ElectraForPreTraining", pad=pad),
    "embedding_size": encoder.embed_width or encoder.width,
    "type_vocab_size": encoder.types,
  }
  return config, layout.to_tensors(_entries(config), params)


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors."""
  width, embed_width = config["hidden_size"], config["embedding_size"]
  head, project = "discriminator_predictions", "electra.embeddings_project"
  entries = {
    **bert.encoder_entries(config, "electra"),
    **layout.dense(f"{head}.dense", "dense", (width, width)),
    **layout.dense(f"{head}.dense_prediction", "head", (1, width)),
  }
  if width != embed_width:
    entries |= layout.dense(project, "encoder/embed_up", (width, embed_width))
  return entries
