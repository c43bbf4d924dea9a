"""Converts `BertForMaskedLM` of Hugging Face Transformers.

`maskjax.convert.roberta` uses the same functions with another `Family`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import SAME, Entry, Layout
from maskjax.convert.texts import (
  check_kind,
  config_of,
  encoder_of,
  hyperparameters_of,
  pad_of,
)
from maskjax.errors import UserError

# Further systems with the same network.
EXPORTS = ("mask40",)

# Defaults of `BertConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "hidden_act": "gelu",
  "hidden_size": 768,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-12,
  "max_position_embeddings": 512,
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
  "type_vocab_size": 2,
  "vocab_size": 30522,
}
FIXED: Mapping[str, Any] = {"hidden_act": "gelu"}

BLOCK: Mapping[str, str] = {
  "attention/query": "attention.self.query",
  "attention/key": "attention.self.key",
  "attention/value": "attention.self.value",
  "attention/out": "attention.output.dense",
  "attention_norm": "attention.output.LayerNorm",
  "mlp/up": "intermediate.dense",
  "mlp/down": "output.dense",
  "mlp_norm": "output.LayerNorm",
}


class Family(NamedTuple):
  """The differences between the layouts of BERT and RoBERTa.

  Attributes:
    model_type: as `config.json` and `encoder.kind` name it.
    architecture: the class in transformers.
    prefix: of the names of the encoder's tensors.
    head: their names of the head's parts, by our paths.
    unused: prefixes of the names of tensors that the model here does not have.
    skips: whether the position table has unused rows before that of the first
      position: `pad` + 1 of them.
    pad: id of the padding token if `config.json` has none.
    defaults: of the config's other keys.
  """

  model_type: str
  architecture: str
  prefix: str
  head: Mapping[str, str]
  unused: Sequence[str]
  skips: bool
  pad: int
  defaults: Mapping[str, Any]


FAMILY = Family(
  model_type="bert",
  architecture="BertForMaskedLM",
  prefix="bert",
  head={
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
  },
  # The pooler, the second objective, and copies of the token table and its bias.
  unused=("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder."),
  skips=False,
  pad=0,
  defaults=DEFAULTS,
)

MODEL_TYPE = FAMILY.model_type
OBJECTIVE = "bert"


def from_hf(
  config: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
  family: Family = FAMILY,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `BertForMaskedLM` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.
    family: `FAMILY` of this module or of another.

  Returns:
    Keyword arguments for `maskjax.systems.bert` (all but those of
    masking), and the parameters of its model: a tree of float32 arrays with separate
    blocks.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it. Names the key or the tensors.
  """
  pad = pad_of(config, family.pad)
  skipped = pad + 1 if family.skips else 0
  config = layout.check_config(
    config, model_type=family.model_type, defaults=family.defaults, fixed=FIXED
  )
  hyperparameters = hyperparameters_of(
    config,
    family.model_type,
    pad=pad,
    length=config["max_position_embeddings"] - skipped,
    types=config["type_vocab_size"],
  )
  found = {n: t for n, t in tensors.items() if not n.startswith(tuple(family.unused))}
  return hyperparameters, layout.to_params(_entries(config, family, skipped), found)


def to_hf(
  hyperparameters: Mapping[str, Any],
  params: Mapping[str, Any],
  family: Family = FAMILY,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of an objective with the same network. Those that
      do not shape it are left out.
    params: the parameters of its model, with separate or with scanned blocks.
    family: `FAMILY` of this module or of another.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  encoder = encoder_of(hyperparameters)
  check_kind(encoder, family.model_type, ("positions", "windows", "norm_last"))
  if encoder.embed_width not in (None, encoder.width):
    raise UserError(
      f"encoder.embed_width={encoder.embed_width}: transformers takes "
      f"{encoder.width} only"
    )
  pad = hyperparameters.get("pad_id", 0)
  skipped = pad + 1 if family.skips else 0
  config = {
    **family.defaults,
    **config_of(encoder, family.model_type, family.architecture, pad=pad),
    "max_position_embeddings": encoder.length + skipped,
    "type_vocab_size": encoder.types,
  }
  return config, layout.to_tensors(_entries(config, family, skipped), params)


def _after(rows: int) -> Layout:
  """The layout of a table that has unused rows before its first one."""
  return Layout(
    lambda tensor: tensor[rows:],
    lambda array, _: np.pad(array, ((rows, 0), (0, 0))),
    lambda shape: (shape[0] - rows, *shape[1:]),
  )


def _entries(config: Mapping[str, Any], family: Family, skipped: int) -> layout.Entries:
  """The entries of all tensors."""
  width = config["hidden_size"]
  return {
    **encoder_entries(config, family.prefix, _after(skipped) if skipped else SAME),
    **layout.dense(family.head["dense"], "head/dense", (width, width)),
    **layout.norm(family.head["norm"], "head/norm", width),
    family.head["bias"]: Entry("head/bias", (config["vocab_size"],)),
  }


def encoder_entries(
  config: Mapping[str, Any], prefix: str, rows: Layout = SAME
) -> layout.Entries:
  """The entries of the encoder's tensors.

  Args:
    config: a checked `config.json`.
    prefix: of their names.
    rows: layout of the position table.
  """
  width = config["hidden_size"]
  embed_width = config.get("embedding_size", width)
  sizes = {
    "word": ("tokens", config["vocab_size"], SAME),
    "position": ("positions", config["max_position_embeddings"], rows),
    "token_type": ("types", config["type_vocab_size"], SAME),
  }
  return {
    **{
      f"{prefix}.embeddings.{name}_embeddings.weight": Entry(
        f"encoder/{ours}", (count, embed_width), of_rows
      )
      for name, (ours, count, of_rows) in sizes.items()
    },
    **layout.norm(f"{prefix}.embeddings.LayerNorm", "encoder/embed_norm", embed_width),
    **layout.vit_blocks(
      f"{prefix}.encoder.layer",
      "encoder",
      width=width,
      hidden=config["intermediate_size"],
      depth=config["num_hidden_layers"],
      names=BLOCK,
    ),
  }
