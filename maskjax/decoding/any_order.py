"""Texts one token at a time, in any order of their positions.

A model that has learned with all shares of masked tokens alike is a language model of
any order (u-PMLM, https://arxiv.org/abs/2004.11579, section 3): each token is predicted
from those that are known, while mask tokens stand for all others.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

# Rows of tokens, int [B, N], and positions, int [B, 1], to logits, float [B, 1, V].
Fill = Callable[[Array, Array], Array]


def generate(
  key: Array,
  fill: Fill,
  tokens: Array,
  order: Array,
  *,
  mask_id: int,
  never: Sequence[int] = (),
  temperature: float = 1.0,
) -> Array:
  """Generates tokens in a given order of their positions.

  Args:
    key: one for all rows.
    fill: predicts the token at a position of each row, for example
      `lambda tokens, ids: model.apply(variables, text.with_tokens(tokens), ids)`.
    tokens: int [B, N]; what is not in `order` is given and stays.
    order: int [B, K], the positions to generate, the first one first; none twice.
    mask_id: the token that stands at positions that are not generated yet.
    never: tokens that are not generated, such as special ones.
    temperature: of the softmax that tokens are drawn from; 0 for the likeliest token.

  Returns:
    int [B, N].

  Example:
    >>> def counts_up(tokens, ids):
    ...   left = jnp.take_along_axis(tokens, ids - 1, axis=1)
    ...   return 99.0 * jax.nn.one_hot(left + 1, 9)
    >>> tokens, order = jnp.array([[4, 0, 0, 0]]), jnp.array([[1, 2, 3]])
    >>> generate(jax.random.key(0), counts_up, tokens, order, mask_id=0).tolist()
    [[4, 5, 6, 7]]
  """

  def write(tokens: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
    key, positions = step
    logits = _logits(fill, tokens, positions, never)
    if temperature > 0:
      token = jax.random.categorical(key, logits / temperature)
    else:
      token = logits.argmax(axis=-1)
    return _put(tokens, positions[:, None], token[:, None]), None

  steps = jax.random.split(key, order.shape[1]), order.T
  masked = _put(tokens, order, jnp.full_like(order, mask_id))
  return jax.lax.scan(write, masked, steps)[0]


def log_likelihood(
  fill: Fill,
  tokens: Array,
  order: Array,
  *,
  mask_id: int,
  never: Sequence[int] = (),
) -> Array:
  """The log-likelihood of texts in a given order of their positions; exact.

  The sum, along the order, of the logarithms of each token's probability, given the
  tokens before it in the order and those that are not in it.

  Args:
    fill: see `generate`.
    tokens: int [B, N].
    order: see `generate`; what is not in it is given.
    mask_id: see `generate`.
    never: see `generate`.

  Returns:
    float32 [B], in nats.
  """

  def read(seen: Array, positions: Array) -> tuple[Array, Array]:
    log_probabilities = jax.nn.log_softmax(_logits(fill, seen, positions, never))
    token = jnp.take_along_axis(tokens, positions[:, None], axis=1)
    seen = _put(seen, positions[:, None], token)
    return seen, jnp.take_along_axis(log_probabilities, token, axis=1)[:, 0]

  masked = _put(tokens, order, jnp.full_like(order, mask_id))
  return jax.lax.scan(read, masked, order.T)[1].sum(axis=0)


def _logits(fill: Fill, tokens: Array, positions: Array, never: Sequence[int]) -> Array:
  """Logits at one position of each row: float32 [B, V]."""
  logits = fill(tokens, positions[:, None])[:, 0].astype(jnp.float32)
  return logits.at[:, jnp.array(never, jnp.int32)].set(-jnp.inf)


def _put(tokens: Array, positions: Array, values: Array) -> Array:
  """Rows with `values` at `positions`: all int, [B, N], [B, K] and [B, K]."""
  return jax.vmap(lambda row, at, new: row.at[at].set(new))(tokens, positions, values)
