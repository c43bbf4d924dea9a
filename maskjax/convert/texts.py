"""What the converters of text encoders share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from maskjax.errors import UserError
from maskjax.models import BlockOptions
from maskjax.models.text.encoder import KINDS, TextEncoder
from maskjax.systems import bert

# Options of blocks that transformers has no other values of.
_BLOCK_OPTIONS = (
  *("activation", "gated", "key_bias", "key_heads", "layer_scale", "norm"),
  "norm_first",
)


def hyperparameters_of(
  config: Mapping[str, Any],
  kind: str,
  *,
  pad: int,
  length: int | None = None,
  epsilon: str = "layer_norm_eps",
  **encoder: Any,
) -> dict[str, Any]:
  """The hyperparameters of a network that all text systems have.

  Args:
    config: a checked `config.json`, with all keys.
    kind: of the encoder.
    pad: id of the padding token, see `pad_of`.
    length: tokens of a row; `max_position_embeddings` when None.
    epsilon: key of `config` that is `norm_epsilon` here.
    **encoder: further hyperparameters of the encoder.

  Raises:
    UserError: they do not fit together; names the key.
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
  encoder_of(hyperparameters)  # raises if they do not fit together
  return hyperparameters


def config_of(
  encoder: TextEncoder,
  model_type: str,
  architecture: str,
  *,
  pad: int,
  epsilon: str = "layer_norm_eps",
) -> dict[str, Any]:
  """The inverse of `hyperparameters_of`.

  Args:
    encoder: the encoder.
    model_type: as `config.json` names it.
    architecture: the class in transformers.
    pad: id of the padding token.
    epsilon: key that is `norm_epsilon` here.

  Returns:
    The entries of `config.json` that all text encoders have.
  """
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
  """The hidden width of the blocks' MLPs."""
  return round(encoder.width * encoder.options.mlp_ratio)


def pad_of(config: Mapping[str, Any], default: int) -> int:
  """The id of the padding token.

  Args:
    config: the content of `config.json`.
    default: used if it has no `pad_token_id`.

  Raises:
    UserError: it is not a token id.
  """
  pad = config.get("pad_token_id", default)
  if type(pad) is not int or pad < 0:
    raise UserError(f"pad_token_id={pad!r}: expected a token id")
  return pad


def check_kind(encoder: TextEncoder, kind: str, fields: Sequence[str]) -> None:
  """Checks that an encoder is of a kind that transformers has.

  Args:
    encoder: the encoder.
    kind: a key of `KINDS`.
    fields: of the encoder to check, beside the options of its blocks.

  Raises:
    UserError: a field or option has another value; names it.
  """
  of_blocks = dataclasses.asdict(encoder.options)
  for key in (*fields, *_BLOCK_OPTIONS):
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
