"""What the layouts of text encoders have in common."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from maskjax.errors import UserError
from maskjax.models import BlockOptions
from maskjax.models.text.encoder import KINDS, TextEncoder
from maskjax.systems import bert


def hyperparameters_of(
  config: Mapping[str, Any],
  kind: str,
  *,
  pad: int,
  length: int | None = None,
  epsilon: str = "layer_norm_eps",
  **encoder: Any,
) -> dict[str, Any]:
  """What all text systems need to know of a network.

  Args:
    config: the content of `config.json`, nothing left out.
    kind: of the encoder.
    pad: see `pad_of`.
    length: tokens of a row; `max_position_embeddings` when None.
    epsilon: what `norm_epsilon` is called there.
    **encoder: what else the encoder has.

  Raises:
    UserError: what does not fit together; names the key.
  """
  hyperparameters = {
    "vocab_size": config["vocab_size"],
    "length": config["max_position_embeddings"] if length is None else length,
    "pad_id": pad,
    "encoder": {
      "kind": kind,
      "width": config["hidden_size"],
      "depth": config["num_hidden_layers"],
      "heads": config["num_attention_heads"],
      **encoder,
    },
    "norm_epsilon": config[epsilon],
    "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
  }
  encoder_of(hyperparameters)  # says what does not fit together
  return hyperparameters


def config_of(
  encoder: TextEncoder,
  model_type: str,
  architecture: str,
  *,
  pad: int,
  epsilon: str = "layer_norm_eps",
) -> dict[str, Any]:
  """The inverse of `hyperparameters_of`: what all have in their `config.json`."""
  return {
    "architectures": [architecture],
    "dtype": "float32",
    "hidden_size": encoder.width,
    "intermediate_size": hidden_size(encoder),
    epsilon: encoder.norm_epsilon,
    "max_position_embeddings": encoder.length,
    "model_type": model_type,
    "num_attention_heads": encoder.heads,
    "num_hidden_layers": encoder.depth,
    "pad_token_id": pad,
    "vocab_size": encoder.vocab_size,
  }


def encoder_of(hyperparameters: Mapping[str, Any]) -> TextEncoder:
  """The encoder of a masked language model's hyperparameters."""
  of_network = ("vocab_size", "length", "encoder", "norm_epsilon", "mlp_ratio")
  shaping = {k: v for k, v in hyperparameters.items() if k in of_network}
  return bert(**shaping, mask_id=0, special_ids=()).model.encoder


def hidden_size(encoder: TextEncoder) -> int:
  """Channels in the blocks' networks."""
  return round(encoder.width * encoder.options.mlp_ratio)


def pad_of(config: Mapping[str, Any], default: int) -> int:
  """The token of padding, as a `config.json` has it."""
  pad = config.get("pad_token_id", default)
  if type(pad) is not int or pad < 0:
    raise UserError(f"pad_token_id={pad!r}: expected a token")
  return pad


def check_kind(encoder: TextEncoder, kind: str, fields: Sequence[str]) -> None:
  """Raises a `UserError` where an encoder is not of a kind, in some fields of it."""
  of_blocks = dataclasses.asdict(encoder.options)
  always = ("gated", "norm_first", "activation", "layer_scale", "key_bias")
  for key in (*fields, *always):
    if key in of_blocks:
      found, usual = of_blocks[key], getattr(BlockOptions, key)
    else:
      found, usual = getattr(encoder, key), getattr(TextEncoder, key)
    expected = KINDS[kind].get(key, usual)
    if found != expected:
      raise UserError(
        f"encoder.{key}={found!r}: transformers takes {expected!r} only, in a model of "
        f"type {kind!r}"
      )
