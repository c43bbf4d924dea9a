"""The options of a transformer block, for images and for text alike."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from maskjax.errors import UserError, did_you_mean
from maskjax.models.checks import check_dtype
from maskjax.models.gelu import ACTIVATIONS
from maskjax.models.initialization import SCHEMES, Initialization
from maskjax.models.rotary import BASE, GRID, Rotary

# What the backward pass of a block finds in memory; it computes the rest again. The
# products of weights are those without a batch axis: attention's own have one.
REMAT: Mapping[str, Callable[..., Any]] = {
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class BlockOptions:
  """What the blocks of a network are like.

  A new option is a field here and its use in `maskjax.models.transformer.Block`: every
  network hands these options on as a whole.

  Attributes:
    mlp_ratio: hidden width of the MLPs over the width of the tokens.
    norm: `layer`, or `rms`, which neither subtracts means nor adds biases
      (https://arxiv.org/abs/1910.07467).
    norm_epsilon: added to the variance, or the mean square, in normalization.
    norm_last: normalize the sum of tokens and branch, as BERT does, and not the input
      of the branch.
    norm_first: normalize the input of the first block's attention, as all but
      ModernBERT do, which normalizes embedded tokens; without effect with `norm_last`,
      and always True with `scan`.
    context_norm: normalize the tokens that others attend to, where blocks attend to a
      `context`.
    activation: of the MLPs, a name in `maskjax.models.gelu.ACTIVATIONS`.
    gated: multiply the activation by a third layer's output
      (https://arxiv.org/abs/2002.05202).
    use_bias: give all layers, and the normalizations, biases.
    key_bias: give the keys of attention a bias, as all but BEiT do.
    key_heads: number of heads of keys and values, each of which as many neighboring
      heads of queries share (https://arxiv.org/abs/2305.13245); a head for each when
      None.
    dropout: share of the output of each branch that is dropped at random, where there
      is a `dropout` generator.
    mlp_dropout: share of the MLPs' hidden units that is dropped, likewise.
    attention_dropout: share of the attention weights that is dropped, likewise.
    attention_output_dropout: share of the output of attention that is dropped, where it
      is another one than `dropout`, as in ModernBERT.
    layer_scale: initial factor of the channels of each branch, as parameters
      (https://arxiv.org/abs/2103.17239); None for no such parameters.
    rotary: what rotary positions are.
    rotary_bases: `base` of `maskjax.models.rotary.rotate` in each block, in turn from
      the first on.
    drop_path: probability that an example skips a branch of the last block, where there
      is a `drop_path` generator; those of earlier blocks rise from 0 to it.
    drop_path_rises: whether they do; else all blocks have the same.
    initialization: how parameters are drawn at first, a name in
      `maskjax.models.initialization.SCHEMES`.
    scan: compile one block and loop over it: parameters are stacked under `blocks`
      instead of standing under `block_0`, `block_1`, ...
    remat: which activations of each block the backward pass computes again: `none`;
      `dots`, all but the products of weights; or `full`, all.
    dtype: type of the computation, `float32` or `bfloat16`; parameters and statistics
      stay float32.

  Raises:
    UserError: an option out of its range; names it.

  Example:
    >>> BlockOptions(dtype="bfloat16").dtype
    dtype(bfloat16)
    >>> BlockOptions(drop_path=1.0)
    Traceback (most recent call last):
    maskjax.errors.UserError: drop_path=1.0: expected at least 0 and less than 1
  """

  mlp_ratio: float = 4.0
  norm: str = "layer"
  norm_epsilon: float = 1e-6
  norm_last: bool = False
  norm_first: bool = True
  context_norm: bool = True
  activation: str = "gelu"
  gated: bool = False
  use_bias: bool = True
  key_bias: bool = True
  key_heads: int | None = None
  dropout: float = 0.0
  mlp_dropout: float = 0.0
  attention_dropout: float = 0.0
  attention_output_dropout: float | None = None
  layer_scale: float | None = None
  rotary: Rotary = GRID
  rotary_bases: tuple[float, ...] = (BASE,)
  drop_path: float = 0.0
  drop_path_rises: bool = True
  initialization: str = "xavier"
  scan: bool = False
  remat: str = "none"
  dtype: DTypeLike = jnp.float32

  def __post_init__(self) -> None:
    """Checks the options, and brings them into a form that can be hashed."""
    object.__setattr__(self, "dtype", check_dtype(self.dtype))
    object.__setattr__(self, "rotary_bases", tuple(self.rotary_bases))
    rates = ("dropout", "mlp_dropout", "attention_dropout", "attention_output_dropout")
    for rate in (*rates, "drop_path"):
      value = getattr(self, rate)
      if value is not None and not 0 <= value < 1:
        raise UserError(f"{rate}={value}: expected at least 0 and less than 1")
    if self.remat not in ("none", *REMAT):
      raise UserError(f"remat={self.remat!r}: expected {', '.join(('none', *REMAT))}")
    if self.norm not in ("layer", "rms"):
      raise UserError(f"norm={self.norm!r}: expected 'layer' or 'rms'")
    if self.key_heads is not None and self.key_heads < 1:
      raise UserError(f"key_heads={self.key_heads}: expected None or at least 1")
    if self.activation not in ACTIVATIONS:
      hint = did_you_mean(str(self.activation), ACTIVATIONS)
      raise UserError(f"activation={self.activation!r}: {hint}")
    if self.initialization not in SCHEMES:
      hint = did_you_mean(str(self.initialization), SCHEMES)
      raise UserError(f"initialization={self.initialization!r}: {hint}")
    if not self.rotary_bases:
      raise UserError("rotary_bases=(): expected at least one base")
    if self.scan and not self.norm_first:
      raise UserError(
        "scan=True: expected norm_first=True, so that all blocks are alike"
      )

  @property
  def drawn(self) -> Initialization:
    """How parameters are, at first."""
    return SCHEMES[self.initialization]

  @property
  def further(self) -> "BlockOptions":
    """The options of blocks that are added to these."""
    return self.replace(initialization=self.drawn.further or self.initialization)

  @property
  def drops_out(self) -> bool:
    """Whether training drops numbers of activations at random."""
    rates = (self.dropout, self.mlp_dropout, self.attention_dropout)
    return any((*rates, self.attention_output_dropout))

  def replace(self, **changes: Any) -> "BlockOptions":
    """These options with some changed.

    Example:
      >>> BlockOptions(drop_path=0.1).replace(drop_path=0.0).drop_path
      0.0
    """
    return dataclasses.replace(self, **changes)


def split_options(
  given: Mapping[str, Any], network: type, *, other: Iterable[str]
) -> tuple[dict[str, Any], BlockOptions]:
  """Separates the fields of a network from the options of its blocks.

  Args:
    given: fields of both, by name.
    network: a module with a field `options`.
    other: its fields that stand elsewhere, and may not be given here.

  Returns:
    The network's fields, and the options of its blocks.

  Raises:
    UserError: a name that neither has, or an option out of its range; names it.

  Example:
    >>> from maskjax.models import Decoder
    >>> given = {"positions": "rotary", "gated": True}
    >>> own, options = split_options(given, Decoder, other=["grid", "width"])
    >>> own, options.gated
    ({'positions': 'rotary'}, True)
  """
  fields = {field.name for field in dataclasses.fields(network)}
  fields -= {"name", "options", "parent", *other}
  known = fields | {field.name for field in dataclasses.fields(BlockOptions)}
  for key in given:
    if key not in known:
      raise UserError(f"no model option {key!r}: {did_you_mean(key, known)}")
  own = {key: value for key, value in given.items() if key in fields}
  return own, BlockOptions(**{k: v for k, v in given.items() if k not in own})
