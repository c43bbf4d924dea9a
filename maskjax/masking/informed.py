"""Informed masks: scores of one example's tokens in, bool [N] out, `True` masked.

Unlike the samplers of `maskjax.masking.samplers` they need to know something of the
example: how much a teacher attends to each token, or how hard each is to predict.
"""

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.resolve import did_you_mean

__all__ = ["attended", "hardest"]

MODES = ("high", "hint", "low")


def highest(scores: Array, count: Array | int) -> Array:
  """Where the `count` highest of scores [N] stand: bool [N].

  Example:
    >>> highest(jnp.array([0.1, 0.9, 0.5]), 2).tolist()
    [False, True, True]
  """
  rank = jnp.argsort(jnp.argsort(scores))
  return rank >= scores.shape[0] - count


def hardest(key: Array, scores: Array, num_masked: int, num_hardest: Array) -> Array:
  """Masks the hardest tokens, and others at random.

  As HPM does (https://arxiv.org/abs/2304.05919, section 3.3), which lets the number of
  the hardest grow while it trains.

  Args:
    key: the example's key.
    scores: how hard each token is: [N].
    num_masked: how many tokens to mask.
    num_hardest: how many of them have to be those of the highest scores, int scalar.

  Returns:
    bool [N], exactly `num_masked` True.

  Example:
    >>> scores = jnp.arange(6.0)
    >>> hardest(jax.random.key(0), scores, 4, 3).tolist()[3:]
    [True, True, True]
  """
  noise = jax.random.uniform(key, scores.shape)
  return highest(noise + highest(scores, num_hardest), num_masked)


def attended(
  key: Array,
  scores: Array,
  *,
  mode: str = "high",
  low: float = 0.1,
  high: float = 0.5,
  prob: float = 0.5,
  show: float = 0.1,
) -> Array:
  """Masks tokens by how much a teacher attends to them (AttMask).

  (https://arxiv.org/abs/2203.12719, section 3.2.) `high` masks those attended to most;
  `low` those attended to least; `hint` is `high`, but shows some of the tokens
  attended to most, drawn at random.

  Args:
    key: the example's key.
    scores: attention of the class token to each other token: [N].
    mode: `high`, `hint` or `low`.
    low: least share of the tokens that is masked; the share is uniform.
    high: greatest share.
    prob: how often anything is masked at all.
    show: in `hint`, the share of all tokens among which the shown ones are; as many
      are shown as this is of the masked ones.

  Returns:
    bool [N]; the number of True differs from call to call.

  Raises:
    UserError: no such mode, or shares that are none; names them.

  Example:
    >>> mask = attended(jax.random.key(0), jnp.arange(8.0), low=0.5, prob=1.0)
    >>> mask.tolist()
    [False, False, False, False, True, True, True, True]
  """
  if mode not in MODES:
    raise UserError(f"mask.mode={mode!r}: {did_you_mean(mode, MODES)}")
  if not 0 <= low <= high < 1:
    raise UserError(f"mask.low={low}, high={high}: expected 0 <= low <= high < 1")
  for name, value in (("prob", prob), ("show", show)):
    if not 0 <= value <= 1:
      raise UserError(f"mask.{name}={value}: expected a number from 0 to 1")
  length = scores.shape[0]
  of_share, of_choice, of_hints = jax.random.split(key, 3)
  share = jax.random.uniform(of_share, minval=low, maxval=high)
  # A whole number of tokens is not rounded down by an ulp.
  count = jnp.floor(share * length + 1e-4).astype(jnp.int32)
  masked = highest(-scores if mode == "low" else scores, count)
  if mode == "hint":
    top = highest(scores, int(show * length))
    noise = jax.random.uniform(of_hints, (length,))
    shown = jnp.floor(show * share * length).astype(jnp.int32)
    masked &= ~(top & highest(top + noise, shown))
  return masked & jax.random.bernoulli(of_choice, prob)
