"""Masked language models as `BertForMaskedLM` of transformers has them.

RoBERTa's differ in little, see `maskjax.convert.roberta`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskjax.convert import layout
from maskjax.convert.layout import SAME, Layout, Place
from maskjax.errors import UserError
from maskjax.models import Transformer
from maskjax.models.text.encoder import KINDS, TextEncoder
from maskjax.objectives import mlm

# The systems that have the same network.
EXPORTS = ("mask40",)

# What `BertConfig` takes where its config.json is silent.
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
  """What sets the layouts of BERT and its kin apart.

  Attributes:
    model_type: as `config.json` names it, and as `encoder.kind` does.
    architecture: the class there.
    prefix: of the encoder's tensors.
    head: names there of the head's parts, by their paths here.
    unused: how the names begin of tensors that the model here does without.
    skips: whether the table of positions has rows before the first place: as many as
      there are tokens up to that of filling.
    pad: the token of filling, where `config.json` is silent.
    defaults: what its config takes where `config.json` is silent.
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
  # The pooler and the second game, and the table and its bias once more.
  unused=("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder."),
  skips=False,
  pad=0,
  defaults=DEFAULTS,
)

MODEL_TYPE = FAMILY.model_type
OBJECTIVE = "mlm"


def from_hf(
  config: Mapping[str, Any],
  tensors: Mapping[str, np.ndarray],
  family: Family = FAMILY,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `BertForMaskedLM` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.
    family: which of BERT's kin it is.

  Returns:
    Keyword arguments for `maskjax.objectives.mlm`, which say nothing of masks, and the
    parameters of its model: a tree of float32 arrays with separate blocks.

  Raises:
    UserError: a config that the model here cannot follow, or tensors that do not fit
      it. Names the key or the tensors.
  """
  pad = pad_of(config, family.pad)
  skipped = pad + 1 if family.skips else 0
  config = layout.check_config(
    config, model_type=family.model_type, defaults=family.defaults, fixed=FIXED
  )
  hyperparameters = {
    "vocab_size": config["vocab_size"],
    "length": config["max_position_embeddings"] - skipped,
    "pad_id": pad,
    "encoder": {
      "kind": family.model_type,
      "width": config["hidden_size"],
      "depth": config["num_hidden_layers"],
      "heads": config["num_attention_heads"],
      "types": config["type_vocab_size"],
    },
    "norm_epsilon": config["layer_norm_eps"],
    "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
  }
  encoder_of(hyperparameters)  # says what does not fit together
  found = {n: t for n, t in tensors.items() if not n.startswith(tuple(family.unused))}
  return hyperparameters, layout.to_params(_places(config, family, skipped), found)


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
    family: which of BERT's kin it shall be.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers has no word for, or parameters that are not
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
    "architectures": [family.architecture],
    "dtype": "float32",
    "hidden_size": encoder.width,
    "intermediate_size": hidden_size(encoder),
    "layer_norm_eps": encoder.norm_epsilon,
    "max_position_embeddings": encoder.length + skipped,
    "model_type": family.model_type,
    "num_attention_heads": encoder.heads,
    "num_hidden_layers": encoder.depth,
    "pad_token_id": pad,
    "type_vocab_size": encoder.types,
    "vocab_size": encoder.vocab_size,
  }
  return config, layout.to_tensors(_places(config, family, skipped), params)


def encoder_of(hyperparameters: Mapping[str, Any]) -> TextEncoder:
  """The encoder of a masked language model's hyperparameters."""
  of_network = ("vocab_size", "length", "encoder", "norm_epsilon", "mlp_ratio")
  shaping = {k: v for k, v in hyperparameters.items() if k in of_network}
  return mlm(**shaping, mask_id=0, special_ids=()).model.encoder


def hidden_size(encoder: TextEncoder) -> int:
  """Channels in the blocks' networks."""
  return round(encoder.width * encoder.options.get("mlp_ratio", Transformer.mlp_ratio))


def check_kind(encoder: TextEncoder, kind: str, fields: Sequence[str]) -> None:
  """Raises a `UserError` where an encoder is not of a kind, in some fields of it."""
  for key in fields:
    expected = KINDS[kind].get(key, getattr(TextEncoder, key))
    if getattr(encoder, key) != expected:
      raise UserError(
        f"encoder.{key}={getattr(encoder, key)!r}: transformers takes {expected!r} "
        f"only, in a model of type {kind!r}"
      )
  for key in ("gated", "norm_first", "activation", "layer_scale", "key_bias"):
    expected = KINDS[kind].get(key, getattr(Transformer, key))
    if encoder.options.get(key, getattr(Transformer, key)) != expected:
      raise UserError(
        f"{key}={encoder.options.get(key)!r}: transformers takes {expected!r} only, "
        f"in a model of type {kind!r}"
      )


def _after(rows: int) -> Layout:
  """Of a table that has rows before its first one."""
  return Layout(
    lambda tensor: tensor[rows:],
    lambda array, _: np.pad(array, ((rows, 0), (0, 0))),
    lambda shape: (shape[0] - rows, *shape[1:]),
  )


def pad_of(config: Mapping[str, Any], default: int) -> int:
  """The token of filling, as a `config.json` has it."""
  pad = config.get("pad_token_id", default)
  if type(pad) is not int or pad < 0:
    raise UserError(f"pad_token_id={pad!r}: expected a token")
  return pad


def _places(config: Mapping[str, Any], family: Family, skipped: int) -> layout.Places:
  """Where each tensor stands."""
  width = config["hidden_size"]
  return {
    **encoder_places(config, family.prefix, _after(skipped) if skipped else SAME),
    **layout.dense(family.head["dense"], "head/dense", (width, width)),
    **layout.norm(family.head["norm"], "head/norm", width),
    family.head["bias"]: Place("head/bias", (config["vocab_size"],)),
  }


def encoder_places(
  config: Mapping[str, Any], prefix: str, rows: Layout = SAME
) -> layout.Places:
  """Where each tensor of the encoder stands.

  Args:
    config: the content of `config.json`.
    prefix: of its tensors there.
    rows: layout of the table of positions.
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
      f"{prefix}.embeddings.{name}_embeddings.weight": Place(
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
