"""What networks around an encoder of text have in common."""

from typing import Any

from flax import linen as nn

from maskjax.models.text.encoder import TextEncoder, attention_bias
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.tokens import Text


def blocks_like(encoder: TextEncoder, depth: int, **own: Any) -> Transformer:
  """Further blocks that are as an encoder's.

  Args:
    encoder: the encoder.
    depth: number of blocks.
    **own: fields of `Transformer` that only these have, for example `name`.
  """
  fields = {
    "heads": encoder.heads,
    "norm_epsilon": encoder.norm_epsilon,
    "norm_last": encoder.norm_last,
    "use_bias": encoder.use_bias,
    "dropout": encoder.dropout,
    "attention_dropout": encoder.attention_dropout,
    "dtype": encoder.dtype,
    **encoder.options,
  }
  return Transformer(depth=depth, **{**fields, "norm_first": True, **own})


def norm_like(encoder: TextEncoder, **own: Any) -> nn.LayerNorm:
  """A normalization that is as those of an encoder.

  Args:
    encoder: it.
    **own: fields that only this one has, for example `name`.
  """
  return LayerNorm(
    epsilon=encoder.norm_epsilon, use_bias=encoder.use_bias, dtype=encoder.dtype, **own
  )


def whole_documents(encoder: TextEncoder, text: Text) -> dict[str, Any]:
  """What further blocks need to know of places: they look at whole documents.

  Args:
    encoder: says what is known of positions.
    text: the tokens.
  """
  return {**encoder.where(text), "bias": attention_bias(text)}
