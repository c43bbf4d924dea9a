"""Masks by attention: scores of one example's tokens in, bool [N] out.

`True` is masked. A config may name another function of this signature by import path.
"""

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError, did_you_mean
from maskjax.masking import highest

__all__ = ["attended"]

MODES = ("high", "hint", "low")


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
  """Masks tokens by how much a teacher attends to them (section 3.2 of the paper).

  `high` masks the tokens with the most
  attention, `low` those with the least; `hint` is `high` with a random subset of the
  most attended tokens left visible.

  Args:
    key: the example's key.
    scores: [N], the attention of the class token to each other token.
    mode: `high`, `hint` or `low`.
    low: smallest share of the tokens to mask; the share is drawn uniformly.
    high: largest share.
    prob: probability that any token is masked.
    show: in `hint`, the hints are drawn from this share of all tokens, those with the
      most attention; their number is this share of the masked tokens'.

  Returns:
    bool [N]; the number of masked tokens is random.

  Raises:
    UserError: no such mode, or a share or a probability outside 0 to 1.

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
  # A whole number of tokens must not be rounded down by an ulp.
  count = jnp.floor(share * length + 1e-4).astype(jnp.int32)
  masked = highest(-scores if mode == "low" else scores, count)
  if mode == "hint":
    top = highest(scores, int(show * length))
    noise = jax.random.uniform(of_hints, (length,))
    shown = jnp.floor(show * share * length).astype(jnp.int32)
    masked &= ~(top & highest(top + noise, shown))
  return masked & jax.random.bernoulli(of_choice, prob)
