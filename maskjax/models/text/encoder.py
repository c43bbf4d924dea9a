"""Encoders of text: BERT, RoBERTa and ModernBERT are one transformer."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError, did_you_mean
from maskjax.models.block_options import BlockOptions, split_options
from maskjax.models.checks import check_rotary, check_shape
from maskjax.models.dropout import dropout
from maskjax.models.relative import Relative, Waves, buckets
from maskjax.models.transformer import Transformer, dense_like, norm_like
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

# Fields of `TextEncoder` and `BlockOptions` by which the kinds of encoder differ.
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
  # https://arxiv.org/abs/2302.13971, section 2.2, which also has `norm="rms"`.
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

POSITIONS = ("biased", "disentangled", "learned", "rotary", "waves")


class TextEncoder(nn.Module):
  """A transformer over tokens of text; no document attends to another one.

  Attributes:
    vocab_size: number of tokens V.
    length: tokens of a row, and so of a document, at most.
    width: number of channels D.
    depth: number of blocks.
    heads: number of attention heads.
    embed_width: channels E of the table of tokens, which a dense layer makes D where
      the two differ, as ELECTRA does; D when None.
    positions: `learned`, added to tokens; `biased`, these and a bias of attention for
      each head and distance, the same in all blocks, as in T5; `rotary`, see
      `maskjax.models.rotary`; `disentangled` or `waves`, see `maskjax.models.relative`.
    buckets: numbers of distances in either direction, of disentangled and biased
      positions; 0 numbers each by itself.
    farthest: the distance from which on all have the last number; `length` when 0.
    types: kinds of a document's parts (BERT's first and second sentence), which are
      added to tokens, the first one where there are no parts; 0 adds none.
    windows: of each block, in turn from the first on, how many tokens on either side
      a token attends to; 0 for all of its document.
    norm_embedded: normalize embedded tokens, before the first block.
    drop_embedded: drop numbers of embedded tokens at random, at the rate of `dropout`.
    options: of the blocks; normalizations outside of them have the same. With
      `norm_last` tokens are not normalized once more after the last block.
  """

  vocab_size: int
  length: int
  width: int
  depth: int
  heads: int
  embed_width: int | None = None
  positions: str = "learned"
  buckets: int = 256
  farthest: int = 0
  types: int = 0
  windows: tuple[int, ...] = (0,)
  norm_embedded: bool = True
  drop_embedded: bool = True
  options: BlockOptions = BlockOptions()

  @property
  def dtype(self) -> DTypeLike:
    """Type of the computation."""
    return self.options.dtype

  @property
  def norm_epsilon(self) -> float:
    """Added to the variance in layer normalization."""
    return self.options.norm_epsilon

  def setup(self) -> None:
    """Makes the table of tokens, which heads read as well, and the rest."""
    embed_width = self.embed_width or self.width
    init = self.options.drawn.tables
    self.table = self.param("tokens", init, (self.vocab_size, embed_width))
    distances = 2 * (self.buckets or self.farthest or self.length)
    if self.positions in ("learned", "biased"):
      self.position_table = self.param("positions", init, (self.length, embed_width))
    if self.positions == "biased":
      shape = (distances, self.heads)
      self.distance_bias = self.param("distance_bias", init, shape)
    if self.positions == "disentangled":
      self.relative = self.param("relative", init, (distances, self.width))
      self.relative_norm = norm_like(self)
    if self.types:
      self.type_table = self.param("types", init, (self.types, embed_width))
    if self.norm_embedded:
      self.embed_norm = norm_like(self)
    if embed_width != self.width:
      self.embed_up = dense_like(self, self.width)
    self.transformer = Transformer(
      depth=self.depth, heads=self.heads, options=self.options
    )
    if not self.options.norm_last:
      self.norm = norm_like(self)

  def __call__(self, text: Text) -> Array:
    """Encodes tokens: [B, N] to [B, N, D]."""
    return self.every_block(text)[-1]

  def every_block(self, text: Text) -> list[Array]:
    """As `__call__`, after each block; only the last one is normalized once more."""
    outputs = self.transformer(self.embed(text), **self.block_inputs(text))
    return [*outputs[:-1], self.finish(outputs[-1])]

  def embed(self, text: Text, vectors: Array | None = None) -> Array:
    """The input of the first block.

    Args:
      text: the tokens and their positions.
      vectors: [B, N, E], in place of the tokens' own; those of the table when None.

    Returns:
      [B, N, D].
    """
    x = self.table[text.token] if vectors is None else vectors
    if self.positions in ("learned", "biased"):
      x = x + self.position_table[text.position]
    if self.types:
      x = x + self.type_table[0 if text.kind is None else text.kind]
    x = x.astype(self.dtype)
    x = self.embed_norm(x) if self.norm_embedded else x
    x = dropout(self, x, self.options.dropout if self.drop_embedded else 0.0)
    return x if x.shape[-1] == self.width else self.embed_up(x)

  def block_inputs(
    self,
    text: Text,
    *,
    windowed: bool = True,
    causal: bool = False,
    biased: bool = True,
  ) -> dict[str, Any]:
    """The inputs of blocks beside the tokens: a bias of attention, and positions.

    Args:
      text: the tokens.
      windowed: attend within `windows`; else to whole documents.
      causal: attend to no later tokens.
      biased: by distances, where positions are `biased`.

    Returns:
      Keyword arguments of `maskjax.models.Transformer`.
    """
    windows = self.windows if windowed else (0,)
    bias = {w: attention_bias(text, window=w, causal=causal) for w in windows}
    if self.positions == "biased" and biased:
      # Those that are farthest have one number in either direction.
      ids = jnp.maximum(self._distances(text), 1)
      more = self.distance_bias[ids].transpose(0, 3, 1, 2)  # [B, N, N, H]
      bias = {w: of_window + more for w, of_window in bias.items()}
    turns = [windows[i % len(windows)] for i in range(self.depth)]
    inputs: dict[str, Any] = {
      "bias": bias[turns[0]] if len(bias) == 1 else [bias[w] for w in turns]
    }
    if self.positions == "rotary":
      inputs["positions"] = text.position[..., None]
    if self.positions == "disentangled":
      vectors = self.relative_norm(self.relative)
      inputs["relative"] = Relative(vectors, self._distances(text))
    if self.positions == "waves":
      inputs["relative"] = Waves(text.position, self.length - 1)
    return inputs

  def _distances(self, text: Text) -> Array:
    """Numbers the distance from each query to each key: int32 [B, N, N]."""
    offsets = text.position[:, :, None] - text.position[:, None]
    most = self.farthest or self.length
    return buckets(offsets, count=self.buckets, most=most)

  def run_blocks(self, x: Array, text: Text, bias: Array | float = 0.0) -> Array:
    """Runs all blocks, and finishes: [B, N, D] to the same.

    Args:
      x: the input of the first block, for example what `embed` gives.
      text: the positions, and which documents they are of.
      bias: added to that of all blocks, broadcast to [B, 1, N, N].
    """
    inputs = self.block_inputs(text)
    if isinstance(inputs["bias"], list):
      inputs["bias"] = [of_block + bias for of_block in inputs["bias"]]
    else:
      inputs["bias"] = inputs["bias"] + bias
    return self.finish(self.transformer(x, **inputs)[-1])

  def finish(self, x: Array) -> Array:
    """Normalizes after the last block, if the blocks do not: [B, N, D] to the same."""
    return x if self.options.norm_last else self.norm(x)

  def token_logits(self, x: Array) -> Array:
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
    window: how many tokens on either side they attend to; 0 for all.
    causal: attend to no later ones.

  Returns:
    float32 [B, 1, N, K], 0 or -inf, see `maskjax.models.attention.attend`.
  """
  keys = text if keys is None else keys
  offset = keys.position[:, None] - text.position[:, :, None]
  seen = text.segment[:, :, None] == keys.segment[:, None]
  if window:
    seen &= jnp.abs(offset) <= window
  if causal:
    seen &= offset <= 0
  return jnp.where(seen, 0.0, -jnp.inf)[:, None]


def text_encoder(
  *, vocab_size: int, length: int, encoder: Mapping[str, Any] | str, **options: Any
) -> TextEncoder:
  """Makes an encoder from hyperparameters, and checks that they fit.

  Args:
    vocab_size: number of tokens.
    length: tokens of a row.
    encoder: a name in `TEXT_SIZES`, or a mapping with `size`, or with `width`, `depth`
      and `heads`; a mapping may have a `kind` (`bert`, the default, or another of
      `KINDS`), and fields of `TextEncoder` and `BlockOptions` that differ from it.
    **options: further fields of `TextEncoder` and of `BlockOptions`.

  Raises:
    UserError: a kind, size or option that there is not, or a number that is out of its
      range; names it.

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
  other = ("vocab_size", "length", *shape)
  own, block_options = split_options(fields, TextEncoder, other=other)
  if "windows" in own:
    own["windows"] = tuple(own["windows"])
  found = TextEncoder(
    vocab_size=vocab_size,
    length=length,
    **shape,
    **own,
    options=block_options,
  )
  if found.positions not in POSITIONS:
    hint = did_you_mean(str(found.positions), POSITIONS)
    raise UserError(f"encoder.positions={found.positions!r}: {hint}")
  if found.buckets < 0 or found.buckets == 1:
    raise UserError(f"encoder.buckets={found.buckets}: expected 0, or at least 2")
  if found.positions in ("rotary", "waves"):
    check_rotary("encoder", width=found.width, heads=found.heads, axes=1)
  return found
