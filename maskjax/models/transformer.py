"""The transformer that every system shares."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.models.attention import Attention
from maskjax.models.block_options import REMAT, BlockOptions
from maskjax.models.dense import Dense
from maskjax.models.dropout import dropout, stochastic_depth
from maskjax.models.gelu import ACTIVATIONS
from maskjax.models.initialization import LayerInit
from maskjax.models.relative import Relative, Waves
from maskjax.models.rotary import BASE
from maskjax.sharding import constrain_batch

# The variance as the mean of squares less the square of the mean, Flax's default,
# loses digits where tokens lie far from zero (gradients off by 2e-2 at a mean of 30).
LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)


class HasOptions(Protocol):
  """A network with the options of its blocks."""

  @property
  def options(self) -> BlockOptions:
    """The options of its blocks."""


class HasBlocks(HasOptions, Protocol):
  """A network that has blocks of its own."""

  @property
  def heads(self) -> int:
    """Number of attention heads of each block."""


class Mlp(nn.Module):
  """Two dense layers with an activation between them.

  Attributes:
    ratio: hidden width over the width of the tokens.
    activation: a name in `maskjax.models.gelu.ACTIVATIONS`.
    gated: multiply the activation by a third layer's output
      (https://arxiv.org/abs/2002.05202).
    use_bias: give the layers biases.
    dropout: share of the hidden units that is dropped at random, where there is a
      `dropout` generator.
    drawn: how the layers are, at first.
    end_drawn: how the last of them is; as the others when None.
    dtype: type of the computation.
  """

  ratio: float = 4.0
  activation: str = "gelu"
  gated: bool = False
  use_bias: bool = True
  dropout: float = 0.0
  drawn: LayerInit = LayerInit()
  end_drawn: LayerInit | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to [B, N, D]."""
    width = x.shape[-1]
    hidden = round(width * self.ratio)

    def dense(features: int, name: str, drawn: LayerInit | None = None) -> Dense:
      return Dense(
        features,
        use_bias=self.use_bias,
        **(drawn or self.drawn)._asdict(),
        dtype=self.dtype,
        name=name,
      )

    y = ACTIVATIONS[self.activation](dense(hidden, "up")(x))
    if self.gated:
      y = y * dense(hidden, "gate")(x)
    y = dropout(self, y, self.dropout)
    return dense(width, "down", self.end_drawn)(y)


class Block(nn.Module):
  """A transformer block.

  Attributes:
    heads: number of attention heads.
    options: of the block; its `norm_first` is of this block, and `rotary_bases`,
      `drop_path`, `scan` and `remat`, which are of a stack, are not read.
    attends: to what: `self`; `context`, to other tokens in place of these; or `both`,
      first to these and then to the others.
    depth: of how many blocks it is one, for `initialization`.
    num_queries: compute only this many of the last tokens; all when None.
    num_keys: attend only to this many of the first tokens; to all when None.
  """

  heads: int
  options: BlockOptions = BlockOptions()
  attends: str = "self"
  depth: int = 1
  num_queries: int | None = None
  num_keys: int | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    drop_path: Array | float = 0.0,
    *,
    number: Array | int = 1,
    context: Array | None = None,
    bias: Array | None = None,
    positions: Array | None = None,
    context_positions: Array | None = None,
    rotary_base: Array | float = BASE,
    relative: Relative | Waves | None = None,
  ) -> Array:
    """Transforms tokens.

    Args:
      x: [B, N, D].
      drop_path: probability that an example skips a branch, where there is a
        `drop_path` generator.
      number: of the block, from 1, for `initialization`.
      context: [B, K, E], for `attends` other than `self`.
      bias: of the attention to `x`, see `maskjax.models.attention.attend`.
      positions: of `x`, for rotary positions: [B, N, A] or [N, A].
      context_positions: of `context`.
      rotary_base: see `maskjax.models.rotary.rotate`.
      relative: see `maskjax.models.relative`; not with `num_queries` or `num_keys`.

    Returns:
      [B, num_queries or N, D].
    """
    options, x = self.options, constrain_batch(x)
    norm = functools.partial(norm_like, self)
    drawn = options.drawn

    def before(name: str, tokens: Array) -> Array:
      return tokens if options.norm_last else norm(name=f"{name}_norm")(tokens)

    def attention(name: str) -> Attention:
      return Attention(
        heads=self.heads,
        use_bias=options.use_bias,
        key_bias=options.key_bias,
        key_heads=options.key_heads,
        dropout=options.attention_dropout,
        rotate=options.rotary.rotate,
        drawn=drawn.attention(number, self.depth, to_others=name != "attention"),
        dtype=options.dtype,
        name=name,
      )

    def last(tokens: Array) -> Array:
      return tokens if self.num_queries is None else tokens[..., -self.num_queries :, :]

    def add(x: Array, y: Array, name: str) -> Array:
      if options.layer_scale is not None:
        init = nn.initializers.constant(options.layer_scale)
        scale = self.param(f"{name}_scale", init, (y.shape[-1],))
        y = y * scale.astype(y.dtype)
      rate = options.dropout
      if name == "attention" and options.attention_output_dropout is not None:
        rate = options.attention_output_dropout
      x = x + stochastic_depth(self, dropout(self, y, rate), drop_path)
      return norm(name=f"{name}_norm")(x) if options.norm_last else x

    if self.attends != "context":
      y = before("attention", x) if options.norm_first else x
      # All of them where `num_keys` is None.
      keys = slice(None, self.num_keys)
      pair = None if positions is None else (last(positions), positions[..., keys, :])
      if bias is not None:
        bias = bias[..., keys]
        of_each_query = bias.ndim > 1 and bias.shape[-2] > 1
        bias = last(bias) if of_each_query else bias
      y = attention("attention")(
        last(y),
        y[:, keys],
        bias=bias,
        positions=pair,
        rotary_base=rotary_base,
        relative=relative,
      )
      x = add(last(x), y, "attention")
    if self.attends != "self":
      assert context is not None, f"attends={self.attends!r} takes a context"
      pair = None
      if positions is not None and context_positions is not None:
        pair = (last(positions), context_positions)
      if options.context_norm:
        context = norm(name="context_norm")(context)
      y = before("cross_attention", last(x))
      y = attention("cross_attention")(
        y, context, positions=pair, rotary_base=rotary_base
      )
      x = add(last(x), y, "cross_attention")
    mlp = Mlp(
      ratio=options.mlp_ratio,
      activation=options.activation,
      gated=options.gated,
      use_bias=options.use_bias,
      dropout=options.mlp_dropout,
      drawn=drawn.inner,
      end_drawn=drawn.end(number, self.depth),
      dtype=options.dtype,
      name="mlp",
    )
    return constrain_batch(add(x, mlp(before("mlp", x)), "mlp"))


class Change(NamedTuple):
  """A change of the hidden states in the middle of a stack.

  Attributes:
    layer: number of the block before which it is made, from 0.
    apply: changes hidden states, [B, N, D] to the same.
  """

  layer: int
  apply: Callable[[Array], Array]


class Transformer(nn.Module):
  """A stack of blocks.

  Attributes:
    depth: number of blocks.
    heads: number of attention heads.
    options: see `BlockOptions`.
    attends: see `Block`.
    before: how many blocks of another stack stand before these, for `initialization`.
    drop_paths: probability of each block that an example skips a branch; when None,
      they rise from 0 to that of the options.
  """

  depth: int
  heads: int
  options: BlockOptions = BlockOptions()
  attends: str = "self"
  before: int = 0
  drop_paths: tuple[float, ...] | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    num_queries: int | None = None,
    *,
    num_keys: int | None = None,
    change: Change | None = None,
    **inputs: Array | Sequence[Array] | Relative | Waves | None,
  ) -> list[Array]:
    """Transforms tokens [B, N, D].

    What no later block reads is not computed: only the last block gives `num_queries`
    tokens alone.

    Args:
      x: [B, N, D].
      num_queries: how many of the last tokens to give; all when None.
      num_keys: see `Block`.
      change: of the hidden states before one of the blocks, for example mask tokens
        that enter there; none when None.
      **inputs: `context`, `bias`, `positions`, `context_positions` and `relative` of
        `Block`; the same for all blocks, or a list with one for each.

    Returns:
      The tokens after each block; the last ones are [B, num_queries or N, D].
    """
    options = self.options
    block = functools.partial(
      remat_of(Block, options.remat, scan=options.scan),
      heads=self.heads,
      attends=self.attends,
      depth=self.before + self.depth,
      num_keys=num_keys,
    )
    first = 0.0 if options.drop_path_rises else options.drop_path
    rates = jnp.linspace(first, options.drop_path, self.depth)
    # Each block's own, and the same for all.
    own: dict[str, Any] = {k: v for k, v in inputs.items() if isinstance(v, list)}
    shared: dict[str, Any] = {k: v for k, v in inputs.items() if k not in own}
    if len(set(options.rotary_bases)) > 1:
      turns = itertools.cycle(options.rotary_bases)
      own["rotary_base"] = [jnp.float32(next(turns)) for _ in range(self.depth)]
    else:
      shared["rotary_base"] = options.rotary_bases[0]
    if self.drop_paths is not None:
      rates = jnp.float32(self.drop_paths)
    if not options.scan:
      outputs = []
      for i in range(self.depth):
        if change is not None and change.layer == i:
          x = change.apply(x)
        layer = block(
          options=options if i == 0 else options.replace(norm_first=True),
          num_queries=num_queries if i == self.depth - 1 else None,
          name=f"block_{i}",
        )
        of_block = {k: v[i] for k, v in own.items()}
        x = layer(x, rates[i], number=self.before + i + 1, **shared, **of_block)
        outputs.append(x)
      return outputs

    def body(layer: Any, tokens: Array, given: Any) -> tuple[Array, Array]:
      rate, number, changes, of_block = given
      if change is not None:
        tokens = jnp.where(changes, change.apply(tokens), tokens)
      tokens = layer(tokens, rate, number=number, **shared, **of_block)
      return tokens, tokens

    layers = nn.scan(
      body,
      variable_axes={"params": 0, "intermediates": 0},
      split_rngs={"params": True, "drop_path": True, "dropout": True},
      length=self.depth,
    )
    own = {name: jnp.stack(arrays) for name, arrays in own.items()}
    changes = None if change is None else jnp.arange(self.depth) == change.layer
    numbers = self.before + 1 + jnp.arange(self.depth)
    given = (rates, numbers, changes, own)
    x, after = layers(block(options=options, name="blocks"), x, given)
    return [
      *(after[i] for i in range(self.depth - 1)),
      x if num_queries is None else x[:, -num_queries:],
    ]


def remat_of(block: type[nn.Module], remat: str, *, scan: bool = False) -> Any:
  """A class of blocks whose backward pass computes activations again.

  Args:
    block: the class.
    remat: which activations, see `BlockOptions`.
    scan: whether blocks run in a scan, whose passes are apart as it is.

  Returns:
    The class, or a transformed one.
  """
  if remat == "none":
    return block
  return nn.remat(block, prevent_cse=not scan, policy=REMAT[remat])


def blocks_like(
  network: HasBlocks,
  depth: int,
  *,
  before: int = 0,
  name: str | None = None,
  drop_paths: tuple[float, ...] | None = None,
  **changes: Any,
) -> Transformer:
  """Further blocks with the options of a network's own.

  Args:
    network: the network, for example an encoder of images or of text.
    depth: number of blocks.
    before: see `Transformer`.
    name: of the module, where it is made in a compact method.
    drop_paths: see `Transformer`.
    **changes: fields of `BlockOptions` in which the blocks differ. `norm_first` is True
      unless it is among them: it is for blocks that read tokens as they are embedded.
  """
  options = network.options.further.replace(**{"norm_first": True, **changes})
  return Transformer(
    depth=depth,
    heads=network.heads,
    options=options,
    before=before,
    drop_paths=drop_paths,
    name=name,
  )


def dense_like(
  network: HasOptions, features: int, role: str = "inner", **fields: Any
) -> Dense:
  """A dense layer with the options of a network's blocks.

  Args:
    network: the network.
    features: number of outputs.
    role: `inner`, or `head` for the last one, which predicts; or `patches`, for their
      embedding: see `maskjax.models.initialization.Initialization`.
    **fields: further fields of the layer, for example `name`.
  """
  options = network.options
  drawn = options.drawn.layer(role)._asdict()
  return Dense(features, **{"dtype": options.dtype, **drawn, **fields})


def norm_like(
  network: HasOptions, *, affine: bool = True, **fields: Any
) -> nn.LayerNorm | nn.RMSNorm:
  """A normalization with the options of a network's blocks.

  Args:
    network: the network.
    affine: give it a scale, and a bias where the network's layers have biases.
    **fields: further fields of the normalization, for example `name`.
  """
  options = network.options
  shared = {"epsilon": options.norm_epsilon, "dtype": options.dtype}
  shared |= {"use_scale": affine}
  if options.norm == "rms":
    return nn.RMSNorm(**{**shared, **fields})
  shared |= {"use_bias": affine and options.use_bias}
  return LayerNorm(**{**shared, "bias_init": options.drawn.norm_bias, **fields})


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
  """The inverse of `stack_blocks`, of a tree of parameters."""
  out: dict[str, Any] = {}
  for name, value in params.items():
    if name == "blocks":
      depth = jax.tree.leaves(value)[0].shape[0]
      for i in range(depth):
        out[f"block_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], value)
    else:
      out[name] = unstack_blocks(value) if isinstance(value, dict) else value
  return out
