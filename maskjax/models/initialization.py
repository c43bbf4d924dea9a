"""How the parameters of a network are drawn at first, by authors' schemes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

Initializer = nn.initializers.Initializer

XAVIER = nn.initializers.xavier_uniform()
ZEROS = nn.initializers.zeros_init()
# timm's truncated normal is cut at 2, and not at 2 stds: it is this one.
NORMAL = nn.initializers.normal(0.02)
# As torch's layers begin: uniform, 1 over the root of the inputs at most.
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def cut_normal(std: float, at: float) -> Initializer:
  """A normal distribution that is cut at some of its stds, and so has a smaller one.

  Args:
    std: before the cut.
    at: how many stds from 0 it is cut.

  Example:
    >>> drawn = cut_normal(0.02, at=1)(jax.random.key(0), (1000,))
    >>> print(f"{abs(drawn).max():.3f} {drawn.std():.3f}")
    0.020 0.011
  """
  return nn.initializers.truncated_normal(std, lower=-at, upper=at)


def uniform(limit: float) -> Initializer:
  """A uniform distribution from `-limit` to `limit`."""

  def init(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -limit, limit)

  return init


def joined_xavier(count: int) -> Initializer:
  """Xavier's uniform distribution, of several layers as if they were one.

  Args:
    count: how many layers with the same inputs, and as many outputs each, are one.

  Example:
    >>> drawn = joined_xavier(3)(jax.random.key(0), (24, 24))
    >>> print(f"{abs(drawn).max():.2f} of {(6 / (24 + 3 * 24)) ** 0.5:.2f}")
    0.25 of 0.25
  """

  def init(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
    limit = (6 / (shape[0] + count * shape[1])) ** 0.5
    return uniform(limit)(key, shape, dtype)

  return init


class LayerInit(NamedTuple):
  """How a dense layer is drawn: fields of `maskjax.models.dense.Dense`.

  Attributes:
    kernel_init: of the kernel, [inputs, outputs].
    bias_init: of the bias, [outputs]; as torch has it when None: uniform, 1 over the
      root of the inputs at most.
  """

  kernel_init: Initializer = XAVIER
  bias_init: Initializer | None = ZEROS

  def of_bias(self, inputs: int) -> Initializer:
    """Of the bias of a layer with so many inputs."""
    return uniform(inputs**-0.5) if self.bias_init is None else self.bias_init


# The number of a block, from 1, and how many there are, to the kernel of the layers
# that end its branches.
Ends = Callable[[Array | int, int], Initializer]


def by_number(init: Initializer) -> Ends:
  """Divides the kernels by the root of twice their block's number, as BEiT does."""

  def ends(number: Array | int, depth: int) -> Initializer:
    del depth

    def scaled(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
      return init(key, shape, dtype) / jnp.sqrt(2 * jnp.asarray(number, jnp.float32))

    return scaled

  return ends


def by_depth(init: Initializer) -> Ends:
  """Divides the kernels by the root of twice the number of blocks."""

  def ends(number: Array | int, depth: int) -> Initializer:
    del number

    def scaled(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
      return init(key, shape, dtype) / jnp.sqrt(2 * jnp.float32(depth))

    return scaled

  return ends


def _neox_kernel(
  key: Array, shape: tuple[int, ...], dtype: type = jnp.float32
) -> Array:
  """Of layers that read tokens; https://arxiv.org/abs/2204.06745, section 2.1."""
  return jax.random.normal(key, shape, dtype) * (0.4 / shape[0]) ** 0.5


def _neox_table(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
  """Of tables with a vector for each token, which is the shorter side."""
  return jax.random.normal(key, shape, dtype) * (0.4 / min(shape)) ** 0.5


def _neox_ends(number: Array | int, depth: int) -> Initializer:
  del number

  def init(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
    return jax.random.normal(key, shape, dtype) * shape[-1] ** -0.5 / depth

  return init


def _by_outputs(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
  return uniform(shape[-1] ** -0.5)(key, shape, dtype)


def _first_normal(
  key: Array, shape: tuple[int, ...], dtype: type = jnp.float32
) -> Array:
  """The first tokens of [1, count, D] are normal, the last one is 0."""
  return NORMAL(key, shape, dtype).at[..., -1, :].set(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initialization:
  """How a network is drawn; `SCHEMES` has the named ones.

  Attributes:
    inner: dense layers, in blocks and between them.
    patches: the embedding of patches; as `inner` when None.
    projected: query, key and value of attention; as `inner` when None.
    out: the last layer of attention; as `inner` when None.
    head: the last layer, which predicts; as `inner` when None.
    deconvolution: heads whose outputs are several smaller patches; as `inner` when
      None.
    ends: the kernels of the layers that end the branches of blocks; as `inner` when
      None.
    joined: how many of query, key and value, the last ones, are drawn as one matrix:
      of attention of tokens to themselves, and to others.
    tokens: class tokens and registers.
    mask_token: learned tokens in place of masked ones.
    positions: learned positions of patches, and convolutions but those of ResNets.
    relative: tables of relative positions.
    tables: tokens, positions and types of text.
    norm_bias: biases of normalizations.
    ends_at_0: the last normalization of each residual block of a ResNet begins with
      scales of 0, and so the block as nothing.
    further: the scheme of what is added to a network's own blocks; the same when None.
  """

  inner: LayerInit
  patches: LayerInit | None = None
  projected: LayerInit | None = None
  out: LayerInit | None = None
  head: LayerInit | None = None
  deconvolution: LayerInit | None = None
  ends: Ends | None = None
  joined: tuple[int, int] = (1, 1)
  tokens: Initializer = NORMAL
  mask_token: Initializer = NORMAL
  positions: Initializer = NORMAL
  relative: Initializer = ZEROS
  tables: Initializer = NORMAL
  norm_bias: Initializer = ZEROS
  ends_at_0: bool = False
  further: str | None = None

  def layer(self, role: str) -> LayerInit:
    """The layers of a role: `inner`, or the name of one of the fields after it."""
    found: LayerInit | None = getattr(self, role)
    return self.inner if found is None else found

  def end(
    self, number: Array | int = 1, depth: int = 1, *, role: str = "inner"
  ) -> LayerInit:
    """The layer that ends a branch of a block.

    Args:
      number: of the block, from 1.
      depth: how many blocks there are.
      role: `out` where the branch is attention, and `inner` elsewhere.
    """
    if self.ends is None:
      return self.layer(role)
    return self.inner._replace(kernel_init=self.ends(number, depth))

  def attention(
    self, number: Array | int = 1, depth: int = 1, *, to_others: bool = False
  ) -> dict[str, LayerInit]:
    """The layers `query`, `key`, `value` and `out` of attention.

    Args:
      number: of the block, from 1.
      depth: how many blocks there are.
      to_others: tokens attend to others, and not to themselves.
    """
    count, apart = self.joined[to_others], self.layer("projected")
    one = apart._replace(kernel_init=joined_xavier(count))
    names = ("query", "key", "value")
    together = names[len(names) - count :] if count > 1 else ()
    found = {name: one if name in together else apart for name in names}
    return {**found, "out": self.end(number, depth, role="out")}


_TORCH = LayerInit(UNIFORM, bias_init=None)
# Of torch's transposed convolutions the outputs count as inputs.
_DECONVOLUTION = LayerInit(
  nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform"), _by_outputs
)
_CUT = cut_normal(0.02, at=1)
# Convolutions whose weights alone are drawn as those of dense layers.
_MAE = Initialization(
  inner=LayerInit(XAVIER), patches=LayerInit(XAVIER, bias_init=None), joined=(3, 1)
)
_BEIT = Initialization(
  inner=LayerInit(_CUT),
  ends=by_number(_CUT),
  tokens=_CUT,
  mask_token=_CUT,
  positions=_CUT,
)
_NORMAL = Initialization(inner=LayerInit(NORMAL))
_BERT = cut_normal(0.02, at=2)
_MEGATRON = cut_normal(0.02, at=3)

# Each from its authors' code; what is not said is 0 for biases and tables of relative
# positions, and normal with a std of 0.02 for tokens and tables.
SCHEMES: Mapping[str, Initialization] = {
  # Xavier's distribution of each dense layer by itself.
  "xavier": Initialization(inner=LayerInit(XAVIER), positions=_BERT),
  # As `xavier`, but query, key and value are one matrix, and the bias of the embedding
  # of patches is torch's. MAE, and those who build on its code.
  "mae": _MAE,
  # As `mae`, and where tokens attend to others, key and value are one matrix.
  "crossmae": dataclasses.replace(_MAE, joined=(3, 2)),
  # As `crossmae`, from mask tokens that are 0, on patches that a dense layer embeds.
  "latent_mim": dataclasses.replace(
    _MAE, joined=(3, 2), patches=None, mask_token=_first_normal
  ),
  # As `mae`, but what compares features with a teacher's begins as torch's layers do.
  "dmae": dataclasses.replace(_MAE, further="torch"),
  # As `mae`, with torch's own convolutions as heads.
  "localmim": dataclasses.replace(_MAE, head=_TORCH, deconvolution=_DECONVOLUTION),
  # As `xavier`, with torch's bias of the embedding of patches.
  "capi": dataclasses.replace(_MAE, joined=(1, 1)),
  # As `mae`, but the embedding of patches and tokens are BEiT's.
  "cae": dataclasses.replace(
    _MAE, patches=LayerInit(_CUT), tokens=_CUT, mask_token=_CUT
  ),
  # Normal with a std of 0.02, cut at 1 std; what ends the branches of a block is
  # divided by the root of twice its number.
  "beit": _BEIT,
  # As `beit`, but the blocks of the second branch begin as torch's do, though scaled,
  # since its authors add them last. BEiT v2 and CCViT.
  "beit_v2": dataclasses.replace(_BEIT, further="torch_scaled"),
  # As `beit`, with torch's own convolution as head. Of ViTs.
  "simmim": dataclasses.replace(_BEIT, head=_TORCH),
  # As `normal`, with torch's own convolutions for patches and as head. Of Swins.
  "swin": dataclasses.replace(_NORMAL, patches=_TORCH, head=_TORCH, relative=NORMAL),
  # As `normal`, with torch's own convolutions as heads; mask tokens are BEiT's. timm's
  # ResNets and ConvNeXts.
  "cnn": dataclasses.replace(_NORMAL, head=_TORCH, mask_token=_CUT, ends_at_0=True),
  # As `normal`, with torch's own convolution for patches, scaled as BEiT is.
  "vqkd": dataclasses.replace(_NORMAL, patches=_TORCH, ends=by_number(NORMAL)),
  # As `normal`, with torch's own convolution for patches, and mask tokens that are 0.
  "dino": dataclasses.replace(_NORMAL, patches=_TORCH, mask_token=ZEROS),
  # As `normal`, but biases are 0.02, those of the head excepted.
  "maskfeat": dataclasses.replace(
    _NORMAL,
    inner=LayerInit(NORMAL, nn.initializers.constant(0.02)),
    patches=LayerInit(NORMAL, bias_init=None),
    head=LayerInit(NORMAL),
    norm_bias=nn.initializers.constant(0.02),
  ),
  # Normal with a std of 0.02: BERT in torch, whose code most others have, and I-JEPA.
  "normal": _NORMAL,
  # The same, cut at 2 stds: BERT in TensorFlow, and ERNIE.
  "bert": Initialization(
    inner=LayerInit(_BERT),
    tokens=_BERT,
    mask_token=_BERT,
    positions=_BERT,
    tables=_BERT,
  ),
  # The same, cut at 3 stds; what ends the branches is divided by the root of twice the
  # number of blocks (https://arxiv.org/abs/2412.13663, appendix A).
  "modernbert": Initialization(
    inner=LayerInit(_MEGATRON),
    ends=by_depth(_MEGATRON),
    tokens=_MEGATRON,
    mask_token=_MEGATRON,
    positions=_MEGATRON,
    tables=_MEGATRON,
  ),
  # Normal, by the width; what ends the branches by the number of blocks too. TinyLlama.
  "llama": Initialization(
    inner=LayerInit(_neox_kernel), ends=_neox_ends, tables=_neox_table
  ),
  # As torch's layers begin, but those of attention, and uniform tables.
  "structformer": Initialization(
    inner=_TORCH,
    projected=LayerInit(XAVIER),
    out=LayerInit(XAVIER),
    tables=uniform(0.1),
  ),
  # As torch's layers begin.
  "torch": Initialization(inner=_TORCH),
  # The same, scaled as BEiT is, whose keys and values have biases of their own.
  "torch_scaled": Initialization(
    inner=_TORCH, projected=LayerInit(UNIFORM), ends=by_number(UNIFORM)
  ),
}
