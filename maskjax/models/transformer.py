"""The transformer that every system shares."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.attention import Attention
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout, stochastic_depth
from maskjax.models.gelu import ACTIVATIONS
from maskjax.models.relative import Relative
from maskjax.models.rotary import BASE
from maskjax.sharding import constrain_batch

# The variance as the mean of squares less the square of the mean, Flax's default,
# loses digits where tokens lie far from zero (gradients off by 2e-2 at a mean of 30).
LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)


# What a block's backward pass finds in memory; the rest it computes again. Products of
# weights are those without a batch axis: attention's own products have one.
REMAT: Mapping[str, Any] = {
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
}


class Mlp(nn.Module):
  """Two dense layers with an activation between them.

  Attributes:
    ratio: hidden width over the width of the tokens.
    activation: a name in `maskjax.models.gelu.ACTIVATIONS`.
    gated: multiply what is activated by a third layer's outcome
      (https://arxiv.org/abs/2002.05202).
    use_bias: give the layers biases.
    dtype: type of the computation.
  """

  ratio: float = 4.0
  activation: str = "gelu"
  gated: bool = False
  use_bias: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to [B, N, D]."""
    width = x.shape[-1]
    hidden = round(width * self.ratio)

    def dense(features: int, name: str) -> Dense:
      return Dense(features, use_bias=self.use_bias, dtype=self.dtype, name=name)

    y = ACTIVATIONS[self.activation](dense(hidden, "up")(x))
    if self.gated:
      y = y * dense(hidden, "gate")(x)
    return dense(width, "down")(y)


class Block(nn.Module):
  """A transformer block.

  Attributes:
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLP over the width of the tokens.
    norm_epsilon: added to the variance in layer normalization.
    norm_last: normalize the sum of tokens and branch, as BERT does, and not what the
      branch reads.
    norm_first: normalize what attention reads; but for ModernBERT's first block, which
      reads normalized tokens, this is so where `norm_last` is not.
    activation: see `Mlp`.
    gated: see `Mlp`.
    use_bias: give all layers, and the normalizations, biases.
    key_bias: see `Attention`.
    dropout: share of each branch's outcome that is dropped at random; heeded only
      where there is a `dropout` generator.
    attention_dropout: see `Attention`.
    layer_scale: what each branch's channels are multiplied by at first, as parameters
      (https://arxiv.org/abs/2103.17239); None for no such parameters.
    attends: to what: `self`; `context`, to other tokens in place of these; or `both`,
      first to these and then to the others.
    num_queries: compute only this many of the last tokens; all when None.
    num_keys: attend only to this many of the first tokens; to all when None.
    dtype: type of the computation; parameters and statistics stay float32.
  """

  heads: int
  mlp_ratio: float = 4.0
  norm_epsilon: float = 1e-6
  norm_last: bool = False
  norm_first: bool = True
  activation: str = "gelu"
  gated: bool = False
  use_bias: bool = True
  key_bias: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  layer_scale: float | None = None
  attends: str = "self"
  num_queries: int | None = None
  num_keys: int | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    drop_path: Array | float = 0.0,
    *,
    context: Array | None = None,
    bias: Array | None = None,
    places: Array | None = None,
    context_places: Array | None = None,
    rotary_base: Array | float = BASE,
    relative: Relative | None = None,
  ) -> Array:
    """Transforms tokens.

    Args:
      x: [B, N, D].
      drop_path: probability that an example skips a branch; heeded only where
        there is a `drop_path` generator, as in finetuning.
      context: [B, K, E], which `attends` may ask for.
      bias: of the attention to `x`, see `maskjax.models.attention.attend`.
      places: of `x`, for rotary positions: [B, N, A] or [N, A].
      context_places: of `context`.
      rotary_base: see `maskjax.models.rotary.rotate`.
      relative: see `maskjax.models.relative`; not with `num_queries` or `num_keys`.

    Returns:
      [B, num_queries or N, D].
    """
    x = constrain_batch(x)

    def norm(name: str, tokens: Any) -> Array:
      return LayerNorm(
        epsilon=self.norm_epsilon, use_bias=self.use_bias, dtype=self.dtype, name=name
      )(tokens)

    def before(name: str, tokens: Array) -> Array:
      return tokens if self.norm_last else norm(f"{name}_norm", tokens)

    def attention(name: str) -> Attention:
      return Attention(
        heads=self.heads,
        use_bias=self.use_bias,
        key_bias=self.key_bias,
        dropout=self.attention_dropout,
        dtype=self.dtype,
        name=name,
      )

    def last(tokens: Array) -> Array:
      return tokens if self.num_queries is None else tokens[..., -self.num_queries :, :]

    def add(x: Array, y: Array, name: str) -> Array:
      if self.layer_scale is not None:
        init = nn.initializers.constant(self.layer_scale)
        scale = self.param(f"{name}_scale", init, (y.shape[-1],))
        y = y * scale.astype(y.dtype)
      x = x + stochastic_depth(self, dropout(self, y, self.dropout), drop_path)
      return norm(f"{name}_norm", x) if self.norm_last else x

    if self.attends != "context":
      y = before("attention", x) if self.norm_first else x
      # All of them where `num_keys` is None.
      keys = slice(None, self.num_keys)
      turned = None if places is None else (last(places), places[..., keys, :])
      if bias is not None:
        bias = bias[..., keys]
        of_each_query = bias.ndim > 1 and bias.shape[-2] > 1
        bias = last(bias) if of_each_query else bias
      y = attention("attention")(
        last(y),
        y[:, keys],
        bias=bias,
        places=turned,
        rotary_base=rotary_base,
        relative=relative,
      )
      x = add(last(x), y, "attention")
    if self.attends != "self":
      turned = None
      if places is not None and context_places is not None:
        turned = (last(places), context_places)
      context = norm("context_norm", context)
      y = before("cross_attention", last(x))
      y = attention("cross_attention")(
        y, context, places=turned, rotary_base=rotary_base
      )
      x = add(last(x), y, "cross_attention")
    mlp = Mlp(
      ratio=self.mlp_ratio,
      activation=self.activation,
      gated=self.gated,
      use_bias=self.use_bias,
      dtype=self.dtype,
      name="mlp",
    )
    return constrain_batch(add(x, mlp(before("mlp", x)), "mlp"))


class Transformer(nn.Module):
  """A stack of blocks.

  Attributes:
    depth: number of blocks.
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLPs over the width of the tokens.
    norm_epsilon: added to the variance in layer normalization.
    norm_last: see `Block`.
    norm_first: see `Block`; of the first block alone, and not with `scan`.
    activation: see `Mlp`.
    gated: see `Mlp`.
    use_bias: see `Block`.
    key_bias: see `Block`.
    dropout: see `Block`.
    attention_dropout: see `Block`.
    layer_scale: see `Block`.
    attends: see `Block`.
    rotary_bases: `rotary_base` of each block, in turn from the first on.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    scan: compile one block and loop over it: parameters are stacked under
      `blocks` instead of standing under `block_0`, `block_1`, ...
    remat: what of each block's activations the backward pass computes again:
      `none`; `dots`, all but the products of weights; or `full`, all.
    dtype: type of the computation.
  """

  depth: int
  heads: int
  mlp_ratio: float = 4.0
  norm_epsilon: float = 1e-6
  norm_last: bool = False
  norm_first: bool = True
  activation: str = "gelu"
  gated: bool = False
  use_bias: bool = True
  key_bias: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  layer_scale: float | None = None
  attends: str = "self"
  rotary_bases: tuple[float, ...] = (BASE,)
  drop_path: float = 0.0
  scan: bool = False
  remat: str = "none"
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    num_queries: int | None = None,
    *,
    num_keys: int | None = None,
    **where: Array | Sequence[Array] | Relative | None,
  ) -> list[Array]:
    """Transforms tokens [B, N, D].

    What no later block reads is not computed: only the last block knows which
    tokens are asked for.

    Args:
      x: [B, N, D].
      num_queries: how many of the last tokens are asked for; all when None.
      num_keys: see `Block`.
      **where: `context`, `bias`, `places`, `context_places` and `relative` of `Block`;
        the same for all blocks, or a list with one for each.

    Returns:
      The tokens after each block; the last ones are [B, num_queries or N, D].
    """
    block: Any = Block
    if self.remat != "none":
      policy = REMAT[self.remat]
      block = nn.remat(Block, prevent_cse=not self.scan, policy=policy)
    keywords = dict(
      heads=self.heads,
      mlp_ratio=self.mlp_ratio,
      norm_epsilon=self.norm_epsilon,
      norm_last=self.norm_last,
      activation=self.activation,
      gated=self.gated,
      use_bias=self.use_bias,
      key_bias=self.key_bias,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      layer_scale=self.layer_scale,
      attends=self.attends,
      num_keys=num_keys,
      dtype=self.dtype,
    )
    rates = jnp.linspace(0.0, self.drop_path, self.depth)
    # What is the block's own, and what is the same for all.
    own: dict[str, Any] = {k: v for k, v in where.items() if isinstance(v, list)}
    shared: dict[str, Any] = {k: v for k, v in where.items() if k not in own}
    if len(set(self.rotary_bases)) > 1:
      turns = itertools.cycle(self.rotary_bases)
      own["rotary_base"] = [jnp.float32(next(turns)) for _ in range(self.depth)]
    else:
      shared["rotary_base"] = self.rotary_bases[0]
    if not self.scan:
      outputs = []
      for i in range(self.depth):
        queries = num_queries if i == self.depth - 1 else None
        layer = block(
          **keywords,
          num_queries=queries,
          norm_first=self.norm_first or i > 0,
          name=f"block_{i}",
        )
        x = layer(x, rates[i], **shared, **{k: v[i] for k, v in own.items()})
        outputs.append(x)
      return outputs

    def body(layer: Any, tokens: Array, given: Any) -> tuple[Array, Array]:
      rate, of_block = given
      tokens = layer(tokens, rate, **shared, **of_block)
      return tokens, tokens

    layers = nn.scan(
      body,
      variable_axes={"params": 0, "intermediates": 0},
      split_rngs={"params": True, "drop_path": True, "dropout": True},
      length=self.depth,
    )
    own = {name: jnp.stack(arrays) for name, arrays in own.items()}
    x, after = layers(block(**keywords, name="blocks"), x, (rates, own))
    return [
      *(after[i] for i in range(self.depth - 1)),
      x if num_queries is None else x[:, -num_queries:],
    ]


def stack_blocks(params: dict[str, Any]) -> dict[str, Any]:
  """Turns the parameters of separate blocks into those of a scan.

  Args:
    params: a tree with `block_0`, `block_1`, ... at any depth.

  Returns:
    The tree with each such series stacked under `blocks`, in order.
  """
  series = sorted(
    (k for k in params if k.startswith("block_")), key=lambda k: int(k[6:])
  )
  rest = {
    k: stack_blocks(v) if isinstance(v, dict) else v
    for k, v in params.items()
    if k not in series
  }
  if series:
    rest["blocks"] = jax.tree.map(
      lambda *leaves: jnp.stack(leaves), *(params[k] for k in series)
    )
  return rest


def unstack_blocks(params: dict[str, Any]) -> dict[str, Any]:
  """The inverse of `stack_blocks`."""
  out: dict[str, Any] = {}
  for name, value in params.items():
    if name == "blocks":
      depth = jax.tree.leaves(value)[0].shape[0]
      for i in range(depth):
        out[f"block_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], value)
    else:
      out[name] = unstack_blocks(value) if isinstance(value, dict) else value
  return out
