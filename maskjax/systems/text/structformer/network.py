"""StructFormer: an unsupervised parser, and attention along the trees that it finds."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.attention import weighted_sum
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout
from maskjax.models.initialization import UNIFORM, LayerInit
from maskjax.models.text import TextEncoder
from maskjax.models.transformer import Mlp, blocks_like, norm_like, remat_of
from maskjax.sharding import constrain_batch
from maskjax.systems.text.structformer.dependency import calibrate, head_probabilities
from maskjax.tokens import Text


class Parser(nn.Module):
  """Distances between tokens, and their heights, by convolutions over documents.

  Attributes:
    width: number of channels.
    depth: number of convolutions.
    size: tokens that each one reads, an odd number.
    shared_margin: see `calibrate`.
  """

  width: int
  depth: int
  size: int
  shared_margin: bool

  @nn.compact
  def __call__(self, x: Array, segment: Array) -> tuple[Array, Array]:
    """[B, N, D] and int [B, N] to two float32 [B, N], the distances calibrated."""
    x, side = x.astype(jnp.float32), self.size // 2
    for i in range(self.depth):
      around = neighbors(x, segment, range(-side, side + 1))
      x = self.activate(self.dense(self.width, f"conv_{i}")(around))
    height = self.activate(self.dense(self.width, "height_hidden")(x))
    height = self.dense(1, "height")(height)[..., 0]
    pairs = neighbors(x, segment, range(2))
    distance = self.activate(self.dense(self.width, "distance_hidden")(pairs))
    distance = self.dense(1, "distance")(distance)[..., 0]
    return calibrate(distance, height, segment, shared=self.shared_margin), height

  def dense(self, features: int, name: str) -> Dense:
    """A layer of the parser, which computes in float32 and begins as torch's do."""
    return Dense(features, kernel_init=UNIFORM, bias_init=None, name=name)

  def activate(self, x: Array) -> Array:
    """Normalizes without parameters, and takes the hyperbolic tangent."""
    norm = nn.LayerNorm(
      epsilon=1e-5, use_scale=False, use_bias=False, use_fast_variance=False
    )
    return jnp.tanh(norm(x))


def neighbors(x: Array, segment: Array, offsets: range) -> Array:
  """The tokens around each one in its document, 0 beyond it.

  Args:
    x: [B, N, D].
    segment: int [B, N].
    offsets: from each token.

  Returns:
    [B, N, K * D], for K offsets.

  Example:
    >>> x, segment = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[1, 1, 2]])
    >>> neighbors(x, segment, range(-1, 2))[0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 0.0], [0.0, 3.0, 0.0]]
  """
  positions = jnp.arange(x.shape[1])
  parts = []
  for offset in offsets:
    at = positions + offset
    inside = (at >= 0) & (at < len(positions))
    same = jnp.roll(segment, -offset, axis=1) == segment
    moved = jnp.roll(x, -offset, axis=1)
    parts.append(jnp.where((inside & same)[..., None], moved, 0))
  return jnp.concatenate(parts, axis=-1)


class TreeAttention(nn.Module):
  """Attention that a tree allows: sigmoids, each times how likely two tokens depend.

  Attributes:
    heads: number of heads.
    use_bias: give all layers biases.
    dropout: see `maskjax.models.attention.Attention`.
    drawn: likewise.
    dtype: type of the computation.
  """

  heads: int
  use_bias: bool
  dropout: float
  drawn: Mapping[str, LayerInit]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, depends: Array) -> Array:
    """[B, N, D] and float32 [B, H, N, N] to [B, N, D]."""

    def dense(name: str) -> Dense:
      return Dense(
        x.shape[-1],
        use_bias=self.use_bias,
        **self.drawn[name]._asdict(),
        dtype=self.dtype,
        name=name,
      )

    def into(name: str) -> Array:
      # [B, N, D] -> [B, H, N, D / H]
      return dense(name)(x).reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)

    query, key, value = into("query"), into("key"), into("value")
    query = query * query.shape[-1] ** -0.5
    scores = jnp.einsum(
      "bhnd,bhkd->bhnk", query, key, preferred_element_type=jnp.float32
    )
    weights = dropout(self, jax.nn.sigmoid(scores) * depends, self.dropout)
    y = weighted_sum(weights, value)
    return dense("out")(y.swapaxes(1, 2).reshape(x.shape))


class TreeBlock(nn.Module):
  """A block that normalizes before its branches, the first of which is `TreeAttention`.

  Attributes:
    encoder: has the options of the block.
  """

  encoder: TextEncoder

  @nn.compact
  def __call__(self, x: Array, head: Array, relations: Array) -> Array:
    """Transforms tokens.

    Args:
      x: [B, N, D].
      head: float32 [B, N, N], see `head_probabilities`.
      relations: float32 [H, 2], how much each attention head attends to a token's head
        in the tree, and to its children.
    """
    encoder, options = self.encoder, self.encoder.options
    like: dict[str, Any] = {"use_bias": options.use_bias, "dtype": options.dtype}
    attention = TreeAttention(
      heads=encoder.heads,
      dropout=options.attention_dropout,
      drawn=options.drawn.attention(),
      **like,
      name="attention",
    )
    mlp = Mlp(
      ratio=options.mlp_ratio,
      activation=options.activation,
      gated=options.gated,
      drawn=options.drawn.inner,
      dropout=options.mlp_dropout,
      **like,
      name="mlp",
    )
    either = jnp.stack([head, head.swapaxes(1, 2)])
    depends = jnp.einsum("hr,rbnk->bhnk", relations, either)
    x = constrain_batch(x)
    y = attention(norm_like(encoder, name="attention_norm")(x), depends)
    x = x + dropout(self, y, options.dropout)
    y = mlp(norm_like(encoder, name="mlp_norm")(x))
    return constrain_batch(x + dropout(self, y, options.dropout))


class StructFormer(nn.Module):
  """An encoder whose attention is constrained by dependencies that a parser induces.

  Attributes:
    encoder: embeds tokens, and has the options of all blocks and their number.
    context: how many ordinary blocks stand first, whose normalized output the parser
      and, with positions added once more, the other blocks read; with none the parser
      reads tokens without their positions.
    parser_depth: number of the parser's convolutions.
    conv_size: tokens that each of them reads.
    shared_margin: see `calibrate`.
  """

  encoder: TextEncoder
  context: int
  parser_depth: int
  conv_size: int
  shared_margin: bool = False

  def setup(self) -> None:
    """Makes the parser, the blocks and the head."""
    encoder = self.encoder
    depth = encoder.depth - self.context
    self.parser = Parser(
      width=encoder.width,
      depth=self.parser_depth,
      size=self.conv_size,
      shared_margin=self.shared_margin,
    )
    if self.context:
      self.first = blocks_like(encoder, self.context)
      self.first_norm = norm_like(encoder)
    block = remat_of(TreeBlock, encoder.options.remat)
    self.blocks = [block(encoder=encoder) for _ in range(depth)]
    init = nn.initializers.normal(0.1)
    self.relations = self.param("relations", init, (depth, encoder.heads, 2))
    self.log_scale = self.param("log_scale", nn.initializers.zeros, (2,))
    self.bias = self.param("bias", nn.initializers.zeros, (encoder.vocab_size,))

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logits at `ids` alone: [B, N] and int [B, M] to float32 [B, M, V]."""
    x = gather(self.encode(text), ids)
    x = dropout(self, x, self.encoder.options.dropout)
    return self.encoder.token_logits(x) + self.bias

  def encode(self, text: Text) -> Array:
    """Features of all tokens: [B, N, D]."""
    x, head = self._read(text)
    relations = jax.nn.softmax(self.relations.astype(jnp.float32), axis=-1)
    for block, of_block in zip(self.blocks, relations, strict=True):
      x = block(x, head, of_block)
    return self.encoder.finish(x)

  def parse(self, text: Text) -> Array:
    """How likely each token depends on each other one: float32 [B, N, N]."""
    return self._read(text)[1]

  def _read(self, text: Text) -> tuple[Array, Array]:
    """What the constrained blocks read, and what constrains them."""
    encoder = self.encoder
    x = encoder.embed(text)
    if self.context:
      x = self.first(x, **encoder.block_inputs(text, windowed=False))[-1]
      x = dropout(self, self.first_norm(x), encoder.options.dropout)
      read = x
      if encoder.positions == "learned":
        x = x + encoder.position_table[text.position].astype(x.dtype)
    else:
      read = encoder.table[text.token]
    distance, height = self.parser(read, text.segment)
    depends = jax.vmap(head_probabilities, in_axes=(0, 0, 0, None))
    return x, depends(distance, height, text.segment, jnp.exp(self.log_scale))
