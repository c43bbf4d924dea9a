"""Converts `ModernBertForMaskedLM` of Hugging Face Transformers.

There, queries, keys and values are one tensor, as are the first two layers of a gated
MLP.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import bert, layout, texts
from maskjax.convert.layout import DENSE, Entry
from maskjax.errors import UserError

MODEL_TYPE = "modernbert"
OBJECTIVE = bert.OBJECTIVE
EXPORTS = bert.EXPORTS

# Defaults of `ModernBertConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "attention_bias": False,
  "classifier_activation": "gelu",
  "classifier_bias": False,
  "decoder_bias": True,
  "hidden_activation": "gelu",
  "hidden_size": 768,
  "intermediate_size": 1152,
  "local_attention": 128,
  "max_position_embeddings": 8192,
  "mlp_bias": False,
  "norm_bias": False,
  "norm_eps": 1e-5,
  "num_attention_heads": 12,
  "num_hidden_layers": 22,
  "vocab_size": 50368,
}
PAD = 50283
FIXED: Mapping[str, Any] = {
  key: DEFAULTS[key]
  for key in DEFAULTS
  if key.endswith("bias") or key.endswith("activation")
}

# The types of layers in transformers, and the default bases of their rotary positions.
GLOBAL, LOCAL = "full_attention", "sliding_attention"
BASES: Mapping[str, float] = {GLOBAL: 160_000.0, LOCAL: 10_000.0}
# Keys of the bases in older files.
OLD_BASES = {"global_rope_theta": GLOBAL, "local_rope_theta": LOCAL}

# Their tensors that hold several of our arrays, in this order.
FUSED: Mapping[str, tuple[str, ...]] = {
  "attn.Wqkv": ("attention/query", "attention/key", "attention/value"),
  "mlp.Wi": ("mlp/up", "mlp/gate"),
}


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `ModernBertForMaskedLM` into hyperparameters and parameters.

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
  types, bases, pad = _types(config), _bases(config), texts.pad_of(config, PAD)
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed=FIXED
  )
  if len(types) != config["num_hidden_layers"]:
    raise UserError(
      f"layer_types has {len(types)} entries: expected num_hidden_layers="
      f"{config['num_hidden_layers']}"
    )
  window = {GLOBAL: 0, LOCAL: config["local_attention"] // 2}
  hyperparameters = texts.hyperparameters_of(
    config,
    MODEL_TYPE,
    pad=pad,
    epsilon="norm_eps",
    windows=tuple(window[kind] for kind in types),
    rotary_bases=tuple(bases[kind] for kind in types),
  )
  found = {n: t for n, t in tensors.items() if n != "decoder.weight"}
  for name in list(found):
    parts = FUSED.get(name.removesuffix(".weight").split(".", 3)[-1], ())
    if parts and len(found[name]) % len(parts) == 0:
      rows = np.split(found.pop(name), len(parts))
      found |= {f"{name}/{part}": t for part, t in zip(parts, rows, strict=True)}
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
  texts.check_kind(encoder, MODEL_TYPE, ("positions", "types", "norm_last", "use_bias"))
  depth = range(encoder.depth)
  bases = encoder.options.rotary_bases
  windows = [encoder.windows[i % len(encoder.windows)] for i in depth]
  types = [LOCAL if window else GLOBAL for window in windows]
  found = {kind: bases[i % len(bases)] for i, kind in zip(depth, types, strict=True)}
  if len({*windows} - {0}) > 1 or [found[kind] for kind in types] != [
    bases[i % len(bases)] for i in depth
  ]:
    raise UserError(
      f"encoder.windows={encoder.windows}, rotary_bases={bases}: transformers takes "
      "one window beside 0, and one base for each"
    )
  pad = hyperparameters.get("pad_id", 0)
  config = {
    **DEFAULTS,
    # The defaults of transformers belong to its own vocabulary.
    **{f"{role}_token_id": None for role in ("bos", "cls", "eos", "sep")},
    **texts.config_of(
      encoder, MODEL_TYPE, "ModernBertForMaskedLM", pad=pad, epsilon="norm_eps"
    ),
    "layer_types": types,
    "local_attention": 2 * max(windows) or DEFAULTS["local_attention"],
    "rope_parameters": {
      kind: {"rope_type": "default", "rope_theta": base}
      for kind, base in {**BASES, **found}.items()
    },
  }
  tensors = layout.to_tensors(_entries(config), params)
  for i in depth:
    for fused, parts in FUSED.items():
      name = f"model.layers.{i}.{fused}.weight"
      tensors[name] = np.concatenate([tensors.pop(f"{name}/{part}") for part in parts])
  return config, tensors


def _types(config: Mapping[str, Any]) -> list[str]:
  """The type of each layer, from `layer_types` or from the keys of older files."""
  if config.get("layer_types") is None:
    depth = config.get("num_hidden_layers", DEFAULTS["num_hidden_layers"])
    every = config.get("global_attn_every_n_layers", 3)
    return [LOCAL if i % every else GLOBAL for i in range(depth)]
  for kind in config["layer_types"]:
    if kind not in BASES:
      raise UserError(f"layer_types: {kind!r}: expected {GLOBAL!r} or {LOCAL!r}")
  return list(config["layer_types"])


def _bases(config: Mapping[str, Any]) -> dict[str, float]:
  """The base of rotary positions of each type of layer."""
  bases = dict(BASES)
  for key, kind in OLD_BASES.items():
    bases[kind] = config.get(key, bases[kind])
  for kind, given in (config.get("rope_parameters") or {}).items():
    if given.get("rope_type", "default") != "default":
      raise UserError(
        f"rope_parameters: rope_type={given['rope_type']!r}: only 'default' is "
        "supported"
      )
    bases[kind] = given.get("rope_theta", bases[kind])
  return {kind: float(base) for kind, base in bases.items()}


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  """The entries of all tensors, with fused tensors split into parts."""
  width, vocab_size = config["hidden_size"], config["vocab_size"]
  shapes = {
    **{part: (width, width) for part in FUSED["attn.Wqkv"]},
    **{part: (config["intermediate_size"], width) for part in FUSED["mlp.Wi"]},
  }

  def scale(theirs: str, ours: str) -> layout.Entries:
    return {f"{theirs}.weight": Entry(f"{ours}/scale", (width,))}

  entries: layout.Entries = {
    "model.embeddings.tok_embeddings.weight": Entry(
      "encoder/tokens", (vocab_size, width)
    ),
    **scale("model.embeddings.norm", "encoder/embed_norm"),
    **scale("model.final_norm", "encoder/norm"),
    **layout.dense("head.dense", "head/dense", (width, width), bias=False),
    **scale("head.norm", "head/norm"),
    "decoder.bias": Entry("head/bias", (vocab_size,)),
  }
  for i in range(config["num_hidden_layers"]):
    theirs, ours = f"model.layers.{i}", f"encoder/transformer/block_{i}"
    for fused, parts in FUSED.items():
      for part in parts:
        entry = Entry(f"{ours}/{part}/kernel", shapes[part], DENSE)
        entries[f"{theirs}.{fused}.weight/{part}"] = entry
    entries |= layout.dense(
      f"{theirs}.attn.Wo", f"{ours}/attention/out", (width, width), bias=False
    )
    down = (width, config["intermediate_size"])
    entries |= layout.dense(f"{theirs}.mlp.Wo", f"{ours}/mlp/down", down, bias=False)
    if i:
      entries |= scale(f"{theirs}.attn_norm", f"{ours}/attention_norm")
    entries |= scale(f"{theirs}.mlp_norm", f"{ours}/mlp_norm")
  return entries
