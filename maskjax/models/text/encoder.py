"""Encoders of text: BERT, RoBERTa and ModernBERT are one transformer."""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout
from maskjax.models.relative import Relative, buckets
from maskjax.models.transformer import LayerNorm, Transformer
from maskjax.models.vit import check_dtype, check_options, check_shape
from maskjax.resolve import did_you_mean
from maskjax.tokens import Text

# https://arxiv.org/abs/1810.04805, section 3, and for the smaller ones
# https://arxiv.org/abs/1908.08962, table 1.
TEXT_SIZES: Mapping[str, Mapping[str, int]] = {
  "Ti": {"width": 128, "depth": 2, "heads": 2},
  "M": {"width": 256, "depth": 4, "heads": 4},
  "S": {"width": 512, "depth": 4, "heads": 8},
  "B": {"width": 768, "depth": 12, "heads": 12},
  "L": {"width": 1024, "depth": 24, "heads": 16},
}

# What sets the kinds of encoder apart, in the words of `TextEncoder` and `Transformer`.
# ModernBERT: https://arxiv.org/abs/2412.13663, section 2.1 and appendix A.
KINDS: Mapping[str, Mapping[str, Any]] = {
  "bert": {"types": 2, "norm_epsilon": 1e-12, "norm_last": True},
  "electra": {"types": 2, "norm_epsilon": 1e-12, "norm_last": True},
  "roberta": {"types": 1, "norm_epsilon": 1e-5, "norm_last": True},
  # As DeBERTa-v3: https://arxiv.org/abs/2111.09543, section 3 and appendix A.
  "deberta-v2": {
    "positions": "disentangled",
    "types": 0,
    "norm_epsilon": 1e-7,
    "norm_last": True,
  },
  "modernbert": {
    "positions": "rotary",
    "types": 0,
    "norm_epsilon": 1e-5,
    "norm_first": False,
    "use_bias": False,
    "gated": True,
    "mlp_ratio": 1.5,
    "windows": (0, 64, 64),
    "rotary_bases": (160_000.0, 10_000.0, 10_000.0),
  },
  # https://arxiv.org/abs/2302.13971, section 2.2, but that normalization takes means.
  "llama": {
    "positions": "rotary",
    "types": 0,
    "norm_epsilon": 1e-5,
    "norm_embedded": False,
    "use_bias": False,
    "activation": "silu",
    "gated": True,
    "mlp_ratio": 2.75,
    "rotary_bases": (10_000.0,),
  },
}

POSITIONS = ("disentangled", "learned", "rotary")

_NORMAL = nn.initializers.normal(0.02)


class TextEncoder(nn.Module):
  """A transformer over tokens of text, that does not look from document to document.

  Attributes:
    vocab_size: number of tokens V.
    length: tokens of a row, and so of a document, at most.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    embed_width: channels E of the table of tokens, which a dense layer makes D where
      the two differ, as ELECTRA does; D when None.
    positions: `learned`, added to tokens; `rotary`, see `maskjax.models.rotary`; or
      `disentangled`, see `maskjax.models.relative`.
    buckets: numbers of distances in either direction, of disentangled positions; 0
      numbers each by itself.
    types: kinds of a document's parts (BERT's first and second sentence), which are
      added to tokens, the first one where there are no parts; 0 adds none.
    windows: of each block, in turn from the first on, how far a token looks to either
      side; 0 for all of its document.
    norm_embedded: normalize embedded tokens, before the first block.
    norm_epsilon: added to the variance in layer normalization.
    norm_last: see `maskjax.models.transformer.Block`; with it tokens are not normalized
      once more after the last block.
    use_bias: see `maskjax.models.transformer.Block`.
    dropout: share of what is added to tokens, and of the embedded ones, that training
      drops at random.
    attention_dropout: see `maskjax.models.attention.Attention`.
    options: further fields of `Transformer`.
    dtype: type of the computation.
  """

  vocab_size: int
  length: int
  width: int
  depth: int
  heads: int
  embed_width: int | None = None
  positions: str = "learned"
  buckets: int = 256
  types: int = 0
  windows: tuple[int, ...] = (0,)
  norm_embedded: bool = True
  norm_epsilon: float = 1e-5
  norm_last: bool = False
  use_bias: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  options: Mapping[str, Any] = FrozenDict()
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    """Makes the table of tokens, which heads read as well, and the rest."""
    embed_width = self.embed_width or self.width
    norm = functools.partial(
      LayerNorm,
      epsilon=self.norm_epsilon,
      use_bias=self.use_bias,
      dtype=self.dtype,
    )
    self.table = self.param("tokens", _NORMAL, (self.vocab_size, embed_width))
    if self.positions == "learned":
      self.places = self.param("positions", _NORMAL, (self.length, embed_width))
    if self.positions == "disentangled":
      distances = 2 * (self.buckets or self.length)
      self.relative = self.param("relative", _NORMAL, (distances, self.width))
      self.relative_norm = norm()
    if self.types:
      self.kinds = self.param("types", _NORMAL, (self.types, embed_width))
    if self.norm_embedded:
      self.embed_norm = norm()
    if embed_width != self.width:
      self.embed_up = Dense(self.width, dtype=self.dtype)
    self.transformer = Transformer(
      depth=self.depth,
      heads=self.heads,
      norm_epsilon=self.norm_epsilon,
      norm_last=self.norm_last,
      use_bias=self.use_bias,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      dtype=self.dtype,
      **self.options,
    )
    if not self.norm_last:
      self.norm = norm()

  def __call__(self, text: Text) -> Array:
    """Encodes tokens: [B, N] to [B, N, D]."""
    return self.every_block(text)[-1]

  def every_block(self, text: Text) -> list[Array]:
    """As `__call__`, after each block; only the last one is normalized once more."""
    outputs = self.transformer(self.embed(text), **self.where(text))
    return [*outputs[:-1], self.finish(outputs[-1])]

  def embed(self, text: Text, vectors: Array | None = None) -> Array:
    """What the first block reads: [B, N, D].

    Args:
      text: the tokens and their places.
      vectors: [B, N, E], what stands for the tokens; those of the table when None.
    """
    x = self.table[text.token] if vectors is None else vectors
    if self.positions == "learned":
      x = x + self.places[text.position]
    if self.types:
      x = x + self.kinds[0 if text.kind is None else text.kind]
    x = x.astype(self.dtype)
    x = dropout(self, self.embed_norm(x) if self.norm_embedded else x, self.dropout)
    return x if x.shape[-1] == self.width else self.embed_up(x)

  def where(self, text: Text, *, causal: bool = False) -> dict[str, Any]:
    """What `Transformer` needs to know of the places of tokens.

    Args:
      text: the tokens.
      causal: look at no later tokens.
    """
    bias = {w: attention_bias(text, window=w, causal=causal) for w in self.windows}
    turns = [self.windows[i % len(self.windows)] for i in range(self.depth)]
    where: dict[str, Any] = {
      "bias": bias[turns[0]] if len(bias) == 1 else [bias[w] for w in turns]
    }
    if self.positions == "rotary":
      where["places"] = text.position[..., None]
    if self.positions == "disentangled":
      apart = text.position[:, :, None] - text.position[:, None]
      ids = buckets(apart, count=self.buckets, most=self.length)
      where["relative"] = Relative(self.relative_norm(self.relative), ids)
    return where

  def read(self, x: Array, text: Text, bias: Array | float = 0.0) -> Array:
    """What all blocks make of what the first one reads: [B, N, D] to the same.

    Args:
      x: for example what `embed` gives.
      text: the places, and which documents they are of.
      bias: added to that of all blocks, of a shape that spreads to [B, 1, N, N].
    """
    where = self.where(text)
    if isinstance(where["bias"], list):
      where["bias"] = [of_block + bias for of_block in where["bias"]]
    else:
      where["bias"] = where["bias"] + bias
    return self.finish(self.transformer(x, **where)[-1])

  def finish(self, x: Array) -> Array:
    """What follows the last block: [B, N, D] to the same."""
    return x if self.norm_last else self.norm(x)

  def similarity(self, x: Array) -> Array:
    """Products with all tokens of the table: [..., E] to float32 [..., V]."""
    return jnp.einsum(
      "...e,ve->...v",
      x.astype(self.dtype),
      self.table.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )


def attention_bias(
  text: Text, *, keys: Text | None = None, window: int = 0, causal: bool = False
) -> Array:
  """Lets tokens attend to those of their own document alone.

  Args:
    text: the tokens that attend, [B, N].
    keys: those that are attended to, [B, K]; the same when None.
    window: how far they look to either side; 0 for all.
    causal: look at no later ones.

  Returns:
    float32 [B, 1, N, K], 0 or -inf, see `maskjax.models.attention.attend`.
  """
  keys = text if keys is None else keys
  apart = keys.position[:, None] - text.position[:, :, None]
  seen = text.segment[:, :, None] == keys.segment[:, None]
  if window:
    seen &= jnp.abs(apart) <= window
  if causal:
    seen &= apart <= 0
  return jnp.where(seen, 0.0, -jnp.inf)[:, None]


def text_encoder(
  *,
  vocab_size: int,
  length: int,
  encoder: Mapping[str, Any] | str,
  dtype: str = "float32",
  **options: Any,
) -> TextEncoder:
  """Makes an encoder from hyperparameters, and checks that they fit.

  Args:
    vocab_size: number of tokens.
    length: tokens of a row.
    encoder: a name in `TEXT_SIZES`, or a mapping with `size`, or with `width`, `depth`
      and `heads`; a mapping may have a `kind`, `bert` (the default), `roberta`,
      `modernbert` or `llama`, and fields of `TextEncoder` and `Transformer` that differ
      from it.
    dtype: `float32` or `bfloat16`, type of the computation.
    **options: further fields of `TextEncoder` and `Transformer`.

  Raises:
    UserError: names the hyperparameter that does not fit.

  Example:
    >>> modern = dict(kind="modernbert", size="M")
    >>> text_encoder(vocab_size=100, length=32, encoder=modern).windows
    (0, 64, 64)
  """
  given = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
  kind = given.pop("kind", "bert")
  if kind not in KINDS:
    raise UserError(f"encoder.kind={kind!r}: {did_you_mean(str(kind), KINDS)}")
  size = given.pop("size", None)
  if size is not None and size not in TEXT_SIZES:
    raise UserError(f"no text size {size!r}: {did_you_mean(str(size), TEXT_SIZES)}")
  for key, value in (("vocab_size", vocab_size), ("length", length)):
    if value < 1:
      raise UserError(f"{key}={value}: expected at least 1")
  fields = {**(TEXT_SIZES[size] if size else {}), **KINDS[kind], **options, **given}
  shape = {k: fields.pop(k) for k in ("width", "depth", "heads") if k in fields}
  shape = check_shape("encoder", shape)
  names = ("embed_width", "positions", "buckets", "types", "windows", "norm_epsilon")
  rates = ("dropout", "attention_dropout")
  own = {
    key: _frozen(fields.pop(key))
    for key in (*names, "norm_embedded", "norm_last", "use_bias", *rates)
    if key in fields
  }
  if own.get("positions", "learned") not in POSITIONS:
    hint = did_you_mean(str(own["positions"]), POSITIONS)
    raise UserError(f"encoder.positions={own['positions']!r}: {hint}")
  if own.get("buckets", 0) < 0 or own.get("buckets") == 1:
    raise UserError(f"encoder.buckets={own['buckets']}: expected 0, or at least 2")
  for rate in rates:
    if not 0 <= own.get(rate, 0.0) < 1:
      raise UserError(f"{rate}={own[rate]}: expected at least 0 and less than 1")
  if own.get("positions") == "rotary" and shape["width"] // shape["heads"] % 2:
    raise UserError(
      f"encoder.width={shape['width']}: expected a multiple of 2 channels for each of "
      f"encoder.heads={shape['heads']}, for rotary positions"
    )
  fields = {key: _frozen(value) for key, value in fields.items()}
  return TextEncoder(
    vocab_size=vocab_size,
    length=length,
    **shape,
    **own,
    options=check_options(fields),
    dtype=check_dtype(dtype),
  )


def _frozen(value: Any) -> Any:
  """Lists as tuples, since modules are compared and hashed."""
  return tuple(value) if isinstance(value, list) else value
