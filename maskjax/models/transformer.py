"""The transformer that every system shares."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.attention import SelfAttention
from maskjax.models.dense import Dense
from maskjax.models.gelu import gelu
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
  """Two dense layers with exact GELU between them.

  Attributes:
    ratio: hidden width over the width of the tokens.
    dtype: type of the computation.
  """

  ratio: float = 4.0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to [B, N, D]."""
    width = x.shape[-1]
    hidden = round(width * self.ratio)
    y = Dense(hidden, dtype=self.dtype, name="up")(x)
    y = gelu(y)
    return Dense(width, dtype=self.dtype, name="down")(y)


class Block(nn.Module):
  """A pre-norm transformer block.

  Attributes:
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLP over the width of the tokens.
    norm_epsilon: added to the variance in layer normalisation.
    num_queries: compute only this many of the last tokens; all when None.
    dtype: type of the computation; parameters and statistics stay float32.
  """

  heads: int
  mlp_ratio: float = 4.0
  norm_epsilon: float = 1e-6
  num_queries: int | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, drop_path: Array | float = 0.0) -> Array:
    """Transforms tokens.

    Args:
      x: [B, N, D].
      drop_path: probability that an example skips a branch; heeded only where
        there is a `drop_path` generator, as in finetuning.

    Returns:
      [B, num_queries or N, D].
    """
    x = constrain_batch(x)

    def norm(name: str) -> nn.LayerNorm:
      return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)

    attention = SelfAttention(heads=self.heads, dtype=self.dtype, name="attention")
    y = attention(norm("attention_norm")(x), self.num_queries)
    x = x if self.num_queries is None else x[:, -self.num_queries :]
    x = x + self.keep(y, drop_path)
    mlp = Mlp(ratio=self.mlp_ratio, dtype=self.dtype, name="mlp")
    x = x + self.keep(mlp(norm("mlp_norm")(x)), drop_path)
    x = constrain_batch(x)
    self.sow("intermediates", "tokens", x)
    return x

  def keep(self, y: Array, drop_path: Array | float) -> Array:
    """Drops the branch of random examples, and scales the others up."""
    if not self.has_rng("drop_path"):
      return y
    kept = 1.0 - jnp.asarray(drop_path, jnp.float32)
    shape = (y.shape[0],) + (1,) * (y.ndim - 1)
    lives = jax.random.bernoulli(self.make_rng("drop_path"), kept, shape)
    return jnp.where(lives, y / kept.astype(y.dtype), 0)


class Transformer(nn.Module):
  """A stack of blocks.

  Attributes:
    depth: number of blocks.
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLPs over the width of the tokens.
    norm_epsilon: added to the variance in layer normalisation.
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
  drop_path: float = 0.0
  scan: bool = False
  remat: str = "none"
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array, num_queries: int | None = None) -> Array:
    """Transforms tokens [B, N, D]; gives the last `num_queries`, or all.

    What no later block reads is not computed: only the last block knows which
    tokens are asked for.
    """
    block: Any = Block
    if self.remat != "none":
      policy = REMAT[self.remat]
      block = nn.remat(Block, prevent_cse=not self.scan, policy=policy)
    keywords = dict(
      heads=self.heads,
      mlp_ratio=self.mlp_ratio,
      norm_epsilon=self.norm_epsilon,
      dtype=self.dtype,
    )
    rates = jnp.linspace(0.0, self.drop_path, self.depth)
    if self.scan:
      layers = nn.scan(
        lambda layer, tokens, rate: (layer(tokens, rate), None),
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "drop_path": True},
        length=self.depth,
      )
      x, _ = layers(block(**keywords, name="blocks"), x, rates)
      x = x if num_queries is None else x[:, -num_queries:]
    else:
      for i in range(self.depth):
        queries = num_queries if i == self.depth - 1 else None
        x = block(**keywords, num_queries=queries, name=f"block_{i}")(x, rates[i])
    return x


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
