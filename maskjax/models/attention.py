"""Attention: one function for every model."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout
from maskjax.models.heads import DenseFromHeads, DenseToHeads
from maskjax.models.initialization import LayerInit
from maskjax.models.relative import Relative, Waves, disentangled
from maskjax.models.rotary import BASE, rotate
from maskjax.normalization import unit
from maskjax.sharding import for_tpu

# Numbers that lie side by side in a register of a TPU.
LANES = 128


def attend(query: Array, key: Array, value: Array, bias: Array | None = None) -> Array:
  """Scaled dot-product attention, softmax in float32.

  Batch and heads lead, in either order, so that each product is a plain matrix
  product over the last two axes on every kind of device.

  Args:
    query: [B, H, N, D].
    key: [B, H, K, D].
    value: [B, H, K, D].
    bias: added to the scores, broadcast to [B, H, N, K]; -inf where a query must not
      attend.

  Returns:
    [B, H, N, D], in the type of `value`.
  """
  return weighted_sum(attention_weights(query, key, bias), value)


def weighted_sum(weights: Array, value: Array) -> Array:
  """Sums [B, H, K, D] by weights [B, H, N, K]: [B, H, N, D], in the type of `value`."""
  return jnp.einsum("bhnk,bhkd->bhnd", weights.astype(value.dtype), value)


def attention_weights(query: Array, key: Array, bias: Array | None = None) -> Array:
  """The weight of each key for each query, see `attend`: float32 [B, H, N, K]."""
  return _weights(query * query.shape[-1] ** -0.5, key, bias)


def _weights(query: Array, key: Array, bias: Array | None = None) -> Array:
  scores = jnp.einsum("bhnd,bhkd->bhnk", query, key, preferred_element_type=jnp.float32)
  return jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)


def heads_per_group(*, heads: int, length: int, depth: int) -> int:
  """How many neighboring heads `attend_by_groups` should join; 1 for none.

  Their queries together, and their channels together, still fit the lanes.

  Args:
    heads: number of heads.
    length: number of queries.
    depth: channels of a head.

  Example:
    >>> heads_per_group(heads=16, length=50, depth=64)
    2
  """
  most = min(LANES // depth, LANES // length)
  return max(n for n in range(1, heads + 1) if n <= max(1, most) and heads % n == 0)


def attend_by_groups(query: Array, key: Array, value: Array, group: int) -> Array:
  """Attention of groups of heads at once, for few tokens and narrow heads.

  The heads of a group share one product: the queries of each stand one below the
  other, zero in the channels of the other heads. Matrix units and registers that a
  single head would leave half empty are full, and channels need not be taken apart.

  Args:
    query: [H / group, B, N, group * D], scaled.
    key: [H / group, B, K, group * D].
    value: [H / group, B, K, group * D].
    group: heads in a group.

  Returns:
    [H / group, B, N, group * D], in the type of `value`.
  """
  width = query.shape[-1]
  head = jnp.arange(width) // (width // group)
  # [H / group, B, group * N, group * D]
  stacked = jnp.concatenate(
    [jnp.where(head == i, query, 0) for i in range(group)], axis=2
  )
  weights = _weights(stacked, key).astype(value.dtype)
  parts = jnp.split(jnp.einsum("bhnk,bhkd->bhnd", weights, value), group, axis=2)
  joined = parts[0]
  for i, part in enumerate(parts[1:], start=1):
    joined = jnp.where(head == i, part, joined)
  return joined


@jax.custom_jvp
def attend_by_columns(query: Array, key: Array, value: Array) -> Array:
  """Attention by transposed scores, for many tokens.

  The softmax runs down the columns, and divides the output in place of the
  weights. For the backward pass it leaves the weights in the type of `value`; its
  own derivative takes their part of the softmax's from the output, so that no pass
  over all scores is needed (https://arxiv.org/abs/2205.14135, appendix B.2).

  Args:
    query: [H, B, D, N], scaled.
    key: [H, B, D, K].
    value: [H, B, D, K].

  Returns:
    [H, B, D, N], in the type of `value`.
  """
  return _by_columns(query, key, value)[0]


def _by_columns(query: Array, key: Array, value: Array) -> tuple[Array, Array, Array]:
  """The output, the weights [H, B, K, N] before their division, and its divisors."""
  scores = jnp.einsum("hbdk,hbdn->hbkn", key, query, preferred_element_type=jnp.float32)
  weights = jnp.exp(scores - scores.max(axis=-2, keepdims=True))
  total = weights.sum(axis=-2, keepdims=True)  # [H, B, 1, N]
  weights = weights.astype(value.dtype)
  sums = jnp.einsum(
    "hbdk,hbkn->hbdn", value, weights, preferred_element_type=jnp.float32
  )
  return (sums / total).astype(value.dtype), weights, total


@attend_by_columns.defjvp
def _by_columns_jvp(
  primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
  (query, key, value), (query_dot, key_dot, value_dot) = primals, tangents
  output, weights, total = _by_columns(query, key, value)
  scores_dot = jnp.einsum("hbdk,hbdn->hbkn", key, query_dot)
  scores_dot += jnp.einsum("hbdk,hbdn->hbkn", key_dot, query)
  weights_dot = weights * scores_dot
  sums_dot = jnp.einsum("hbdk,hbkn->hbdn", value, weights_dot)
  sums_dot += jnp.einsum("hbdk,hbkn->hbdn", value_dot, weights)
  total_dot = weights_dot.astype(jnp.float32).sum(axis=-2, keepdims=True)
  wide = sums_dot.astype(jnp.float32) - output.astype(jnp.float32) * total_dot
  return output, (wide / total).astype(value.dtype)


def last_attention(transformer: Mapping[str, Any]) -> Array:
  """The weights that a transformer's last block sowed: float32 [B, H, N, K].

  Args:
    transformer: `intermediates` of a `maskjax.models.Transformer`.
  """
  if "blocks" in transformer:
    return transformer["blocks"]["attention"]["weights"][0][-1]
  last = max(transformer, key=lambda name: int(name.removeprefix("block_")))
  return transformer[last]["attention"]["weights"][0]


class Attention(nn.Module):
  """Multi-head attention, of tokens to themselves or to others.

  Sows `weights`, see `attention_weights`, where `intermediates` are collected.

  Attributes:
    heads: number of heads; divides the width.
    use_bias: give all layers biases.
    key_bias: give the keys a bias, as all but BEiT do.
    key_heads: number of heads of keys and values, see `maskjax.models.BlockOptions`.
    cosine: compare queries and keys by the cosine of their angle, times a learned
      scale of each head of at most 100 (https://arxiv.org/abs/2111.09883, section
      3.2).
    dropout: share of the weights that is dropped at random, where there is a `dropout`
      generator.
    rotate: what positions do to queries and keys, see `maskjax.models.rotary.Rotary`.
    drawn: how the layers `query`, `key`, `value` and `out` are, at first; those that
      are left out by Xavier's distribution.
    dtype: type of the computation.
  """

  heads: int
  use_bias: bool = True
  key_bias: bool = True
  key_heads: int | None = None
  cosine: bool = False
  dropout: float = 0.0
  rotate: Callable[..., Array] = rotate
  drawn: Mapping[str, LayerInit] = dataclasses.field(default_factory=dict)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    queries: Array,
    context: Array,
    *,
    values: Array | None = None,
    bias: Array | None = None,
    positions: tuple[Array, Array] | None = None,
    rotary_base: Array | float = BASE,
    relative: Relative | Waves | None = None,
  ) -> Array:
    """Attends from some tokens to others, or to themselves.

    Args:
      queries: [B, N, D].
      context: [B, K, E].
      values: [B, K, F], summed by the weights of `context`, which is the default.
      bias: see `attend`.
      positions: of `queries` and `context`, for `rotate`; none are rotated without.
      rotary_base: see `rotate`.
      relative: see `maskjax.models.relative`.

    Returns:
      [B, N, D].
    """
    collects = self.is_mutable_collection("intermediates")
    values = context if values is None else values
    plain = bias is None and positions is None and relative is None
    plain = plain and not self.cosine and not self.dropout
    plain = plain and self.key_heads is None
    if for_tpu() and plain and not collects:
      return self.on_tpu(queries, context, values)
    return self.on_others(
      queries, context, values, bias, positions, rotary_base, relative
    )

  def on_others(
    self,
    queries: Array,
    context: Array,
    values: Array,
    bias: Array | None = None,
    positions: tuple[Array, Array] | None = None,
    rotary_base: Array | float = BASE,
    relative: Relative | Waves | None = None,
  ) -> Array:
    """As `__call__`, in the form that suits CPUs and GPUs, with all options."""
    width, depth = queries.shape[-1], queries.shape[-1] // self.heads
    heads = dict.fromkeys(("query", "key", "value"), self.heads)
    if self.key_heads is not None:
      if self.heads % self.key_heads:
        raise UserError(
          f"key_heads={self.key_heads}: expected a divisor of heads={self.heads}"
        )
      heads |= {"key": self.key_heads, "value": self.key_heads}

    layers = {
      name: Dense(
        depth * count,
        use_bias=self._has_bias(name),
        **self._drawn(name)._asdict(),
        dtype=self.dtype,
        name=name,
      )
      for name, count in heads.items()
    }

    def project(tokens: Array, name: str) -> Array:
      y = layers[name](tokens)
      # [B, N, C] -> [B, C / depth, N, depth]
      y = y.reshape(*y.shape[:2], heads[name], depth).swapaxes(1, 2)
      # Neighboring queries share a key.
      shared = self.heads // heads[name]
      return y if shared == 1 else jnp.repeat(y, shared, axis=1)

    query, key = project(queries, "query"), project(context, "key")
    if isinstance(relative, Waves):
      more = relative.scores(query * query.shape[-1] ** -0.5)
      bias = more if bias is None else bias + more
    elif relative is not None:
      # Three scores are added up where `attend` has one.
      query = query * 3**-0.5
      vectors = relative.vectors.astype(self.dtype)[None]
      far_query = project(vectors, "query") * (3 * depth) ** -0.5
      far = far_query, project(vectors, "key")
      more = disentangled(query * depth**-0.5, key, far, relative.ids)
      bias = more if bias is None else bias + more
    if positions is not None:
      query = self.rotate(query, positions[0], rotary_base)
      key = self.rotate(key, positions[1], rotary_base)
    if self.cosine:
      init = nn.initializers.constant(math.log(10))
      scale = self.param("logit_scale", init, (self.heads, 1, 1))
      scale = jnp.exp(jnp.minimum(scale, math.log(100)))
      # Cancels the factor that `attend` gives to all queries.
      scale = scale * query.shape[-1] ** 0.5
      query, key = (
        (unit(query) * scale).astype(query.dtype),
        unit(key).astype(key.dtype),
      )
    weights = attention_weights(query, key, bias)
    self.sow("intermediates", "weights", weights)
    weights = dropout(self, weights, self.dropout)
    y = weighted_sum(weights, project(values, "value"))
    if isinstance(relative, Waves):
      y = y + relative.sums(weights.astype(y.dtype), y.shape[-1])
    # [B, heads, N, D / heads] -> [B, N, D]
    y = y.swapaxes(1, 2).reshape(queries.shape)
    out = Dense(
      width,
      use_bias=self.use_bias,
      **self._drawn("out")._asdict(),
      dtype=self.dtype,
      name="out",
    )
    return out(y)

  def _drawn(self, name: str) -> LayerInit:
    return self.drawn.get(name, LayerInit())

  def _has_bias(self, name: str) -> bool:
    return self.use_bias and (self.key_bias or name != "key")

  def on_tpu(self, queries: Array, context: Array, values: Array) -> Array:
    """As `__call__`, in the forms that suit TPUs; docs/scaling.md has their gains."""
    width = queries.shape[-1]
    length, depth = queries.shape[1], width // self.heads
    group = heads_per_group(heads=self.heads, length=length, depth=depth)
    last = group == 1

    def into(tokens: Array, name: str) -> Array:
      return DenseToHeads(
        width=width,
        heads=self.heads // group,
        use_bias=self._has_bias(name),
        tokens_last=last,
        drawn=self._drawn(name),
        dtype=self.dtype,
        name=name,
      )(tokens)

    query = into(queries, "query") * depth**-0.5
    key, value = into(context, "key"), into(values, "value")
    if last:
      y = attend_by_columns(query, key, value)
    else:
      y = attend_by_groups(query, key, value, group)
    out = DenseFromHeads(
      use_bias=self.use_bias,
      tokens_last=last,
      drawn=self._drawn("out"),
      dtype=self.dtype,
      name="out",
    )
    return out(y)
