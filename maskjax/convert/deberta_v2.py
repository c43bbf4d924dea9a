"""Converts `DebertaV2ForMaskedLM` of Hugging Face Transformers, as DeBERTa-v3 uses it.

That is: no convolution, no absolute positions, and projections that content and
positions share.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import bert, layout, texts
from maskjax.convert.layout import Entry
from maskjax.errors import UserError

MODEL_TYPE = "deberta-v2"
OBJECTIVE = bert.OBJECTIVE
EXPORTS = bert.EXPORTS

# Defaults of `DebertaV2Config` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "conv_kernel_size": 0,
  "hidden_act": "gelu",
  "hidden_size": 1536,
  "intermediate_size": 6144,
  "layer_norm_eps": 1e-7,
  "legacy": True,
  "max_position_embeddings": 512,
  "max_relative_positions": -1,
  "norm_rel_ebd": "none",
  "num_attention_heads": 24,
  "num_hidden_layers": 24,
  "pos_att_type": (),
  "position_biased_input": True,
  "position_buckets": -1,
  "relative_attention": False,
  "share_att_key": False,
  "type_vocab_size": 0,
  "vocab_size": 128100,
}
# The only values of these keys that the model here supports.
FIXED: Mapping[str, Any] = {
  "conv_kernel_size": 0,
  "hidden_act": "gelu",
  "norm_rel_ebd": "layer_norm",
  "position_biased_input": False,
  "relative_attention": True,
  "share_att_key": True,
  "type_vocab_size": 0,
}
BOTH = ("c2p", "p2c")

BLOCK: Mapping[str, str] = {
  **bert.BLOCK,
  **{f"attention/{part}": f"attention.self.{part}_proj" for part in ("query", "key")},
  "attention/value": "attention.self.value_proj",
}
# The names of the head's parts, by whether the head is a "legacy" one.
HEADS: Mapping[bool, Mapping[str, str]] = {
  True: bert.FAMILY.head,
  False: {
    "dense": "lm_predictions.lm_head.dense",
    "norm": "lm_predictions.lm_head.LayerNorm",
    "bias": "lm_predictions.lm_head.bias",
  },
}
UNUSED = ("cls.predictions.decoder.", "mask_predictions.")


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `DebertaV2ForMaskedLM` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, see `layout.to_params`.

  Returns:
    Keyword arguments for `maskjax.systems.bert` (all but those of
    masking), and the parameters of its model: a tree of float32 arrays with separate
    blocks.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it. Names the key or the tensors.
  """
  if config.get("model_type") != MODEL_TYPE:
    raise UserError(f"model_type={config.get('model_type')!r}: expected {MODEL_TYPE!r}")
  pad = texts.pad_of(config, 0)
  config = {key: config.get(key, default) for key, default in DEFAULTS.items()}
  for key, value in FIXED.items():
    if config[key] != value:
      raise UserError(f"{key}={config[key]!r}: only {value!r} is supported")
  attends = config["pos_att_type"]
  attends = attends.split("|") if isinstance(attends, str) else attends
  if tuple(sorted(attends)) != BOTH:
    raise UserError(f"pos_att_type={attends}: only {list(BOTH)} is supported")
  most = config["max_relative_positions"]
  if most not in (-1, config["max_position_embeddings"]):
    raise UserError(
      f"max_relative_positions={most}: expected -1 or max_position_embeddings="
      f"{config['max_position_embeddings']}"
    )
  buckets = max(config["position_buckets"], 0)
  hyperparameters = texts.hyperparameters_of(
    config, MODEL_TYPE, pad=pad, buckets=buckets
  )
  found = {n: t for n, t in tensors.items() if not n.startswith(UNUSED)}
  return hyperparameters, layout.to_params(_entries(config), found)


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`.

  Args:
    hyperparameters: keyword arguments of an objective with the same network. Those that
      do not shape it are left out.
    params: the parameters of its model, with separate or with scanned blocks.

  Returns:
    The content of `config.json`, and the tensors by name.

  Raises:
    UserError: a network that transformers cannot represent, or parameters that are not
      those of the hyperparameters. Names the key or the arrays.
  """
  encoder = texts.encoder_of(hyperparameters)
  texts.check_kind(
    encoder, MODEL_TYPE, ("positions", "types", "windows", "norm_last", "use_bias")
  )
  pad = hyperparameters.get("pad_id", 0)
  config = {
    **DEFAULTS,
    **FIXED,
    **texts.config_of(encoder, MODEL_TYPE, "DebertaV2ForMaskedLM", pad=pad),
    "pos_att_type": list(BOTH),
    "position_buckets": encoder.buckets or -1,
  }
  return config, layout.to_tensors(_entries(config), params)


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors."""
  width, vocab_size = config["hidden_size"], config["vocab_size"]
  buckets = max(config["position_buckets"], 0) or config["max_position_embeddings"]
  head = HEADS[config["legacy"]]
  return {
    "deberta.embeddings.word_embeddings.weight": Entry(
      "encoder/tokens", (vocab_size, width)
    ),
    **layout.norm("deberta.embeddings.LayerNorm", "encoder/embed_norm", width),
    "deberta.encoder.rel_embeddings.weight": Entry(
      "encoder/relative", (2 * buckets, width)
    ),
    **layout.norm("deberta.encoder.LayerNorm", "encoder/relative_norm", width),
    **layout.vit_blocks(
      "deberta.encoder.layer",
      "encoder",
      width=width,
      hidden=config["intermediate_size"],
      depth=config["num_hidden_layers"],
      names=BLOCK,
    ),
    **layout.dense(head["dense"], "head/dense", (width, width)),
    **layout.norm(head["norm"], "head/norm", width),
    head["bias"]: Entry("head/bias", (vocab_size,)),
  }
